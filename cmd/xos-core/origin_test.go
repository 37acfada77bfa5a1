package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/machine"
)

func TestOriginOf(t *testing.T) {
	for _, tc := range []struct {
		peer  rpc.Peer
		actor string
		want  audit.Origin
	}{
		{rpc.Peer{Address: "192.0.2.1:999"}, "192.0.2.1:999", audit.Origin{Name: "192.0.2.1"}},
		{rpc.Peer{Address: "[::ffff:192.0.2.1]:7"}, "", audit.Origin{Name: "192.0.2.1"}},
		{rpc.Peer{Address: "[2001:db8:1:2:3:4:5:6]:7"}, "", audit.Origin{Name: "2001:db8:1:2::/64"}},
		{rpc.Peer{Address: "[fe80::1%eth0]:7"}, "", audit.Origin{Name: "fe80::/64"}},
		// A name in a certificate that nobody verified is its maker's choice.
		{rpc.Peer{Address: "192.0.2.1:999"}, "alice@physics from 192.0.2.1:999", audit.Origin{Name: "192.0.2.1"}},
		{rpc.Peer{Address: "192.0.2.1:999"}, "alice@physics", audit.Origin{Name: "alice@physics", Known: true}},
		{rpc.Peer{Unix: true, UID: 1000}, "uid 1000", audit.Origin{Name: "uid 1000", Known: true}},
		{rpc.Peer{}, "", audit.Origin{}},
	} {
		if got := originOf(rpc.WithPeer(t.Context(), tc.peer), audit.Record{Actor: tc.actor}); got != tc.want {
			t.Errorf("%+v %q: %+v, want %+v", tc.peer, tc.actor, got, tc.want)
		}
	}
}

// A stranger at the core's port is refused by every service as often as he likes,
// each time over a new connection: the log has few lines and the exact number; and
// what root does meanwhile, good or in vain, is all there.
func TestRootRefusalsAreBounded(t *testing.T) {
	var path string
	c := start(t, func(cfg *config) { path = filepath.Join(cfg.State, "audit.log") })
	ctx := context.Background()
	const rounds = 60
	calls := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range rounds / 3 {
				client := rpc.TLSClient(machine.CoreTLS(c.roots, nil))
				base := "https://" + c.api
				vos := xosv1connect.NewVOsClient(client, base, rpc.ClientOptions()...)
				for what, call := range map[string]func() error{
					"VOs": func() error {
						_, err := vos.AddMember(ctx, connect.NewRequest(&xosv1.AddMemberRequest{Vo: "physics", User: "mallory", Roles: []string{"admin"}}))
						return err
					},
					"isolation": func() error {
						_, err := vos.SetIsolation(ctx, connect.NewRequest(&xosv1.SetIsolationRequest{Vo: "physics"}))
						return err
					},
					"Revocations": func() error {
						_, err := xosv1connect.NewRevocationsClient(client, base, rpc.ClientOptions()...).ListBans(ctx, connect.NewRequest(&xosv1.ListBansRequest{}))
						return err
					},
					"Audit": func() error {
						_, err := xosv1connect.NewAuditClient(client, base, rpc.ClientOptions()...).ListAudit(ctx, connect.NewRequest(&xosv1.ListAuditRequest{}))
						return err
					},
					"Machines": func() error {
						_, err := xosv1connect.NewMachinesClient(client, base, rpc.ClientOptions()...).CreateJoinToken(ctx, connect.NewRequest(&xosv1.CreateJoinTokenRequest{}))
						return err
					},
					"Credentials": func() error {
						_, err := xosv1connect.NewCredentialsClient(client, base, rpc.ClientOptions()...).Renew(ctx, connect.NewRequest(&xosv1.RenewRequest{}))
						return err
					},
				} {
					if err := call(); err == nil {
						t.Errorf("%s: a stranger is served", what)
					}
					mu.Lock()
					calls++
					mu.Unlock()
				}
				client.CloseIdleConnections()
			}
		})
	}
	const acts = 30
	for i := range acts {
		if _, err := c.vos.CreateVO(ctx, connect.NewRequest(&xosv1.CreateVORequest{Name: fmt.Sprint("vo", i)})); err != nil {
			t.Fatal(err)
		}
		if _, err := c.vos.CreateVO(ctx, connect.NewRequest(&xosv1.CreateVORequest{Name: fmt.Sprint("vo", i)})); !xos.Is(err, xos.Exists) {
			t.Fatal(err)
		}
	}
	wg.Wait()
	c.stop()
	all, err := audit.Query(path, audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	lines, unwritten, roots := 0, 0, 0
	for _, e := range all {
		switch n, err := strconv.Atoi(e.Detail["unwritten"]); {
		case err == nil:
			unwritten += n
		case e.Actor == "root" && e.Action == xosv1connect.VOsCreateVOProcedure:
			roots++
		case e.Actor != "root" && e.Action != "audit.refused":
			lines++
		}
	}
	if lines != 20 || lines+unwritten != calls || roots != 2*acts {
		t.Errorf("of %d refusals %d have a line and %d are counted; root's %d acts have %d", calls, lines, unwritten, 2*acts, roots)
	}
	if n := c.refusals.Load(); n > 20 {
		t.Errorf("the core's own log has %d lines of refusals", n)
	}
	if _, _, err := audit.Verify(path); err != nil {
		t.Error(err)
	}
}
