package xvoms_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/xvoms"
)

// Only root of the core's machine bans, lifts bans, sees who is banned, and
// says what removals do: a VO's administrator not in her own VO, nor in
// another's, nor a machine; and every try is on record.
func TestWhoMayBan(t *testing.T) {
	f := start(t)
	for _, name := range []string{"alice@physics", "eve@biology"} {
		f.member(name)
	}
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.log"))
	f.ok(err)
	defer log.Close()
	ca := credtest.New(t)
	s := xvoms.NewService(f.Records, ca.Verifier(), log, slog.New(slog.DiscardHandler))
	calls := map[string]func(context.Context) error{
		"ban": func(ctx context.Context) error {
			return second(s.AddBan(ctx, connect.NewRequest(&xosv1.AddBanRequest{Kind: "account", Subject: "alice@physics"})))
		},
		"lift": func(ctx context.Context) error {
			return second(s.RemoveBan(ctx, connect.NewRequest(&xosv1.RemoveBanRequest{Kind: "account", Subject: "alice@physics"})))
		},
		"list": func(ctx context.Context) error {
			return second(s.ListBans(ctx, connect.NewRequest(&xosv1.ListBansRequest{})))
		},
		"removal": func(ctx context.Context) error {
			return second(s.SetRemoval(ctx, connect.NewRequest(&xosv1.SetRemovalRequest{Vo: "biology", Fate: "finish"})))
		},
		"offline": func(ctx context.Context) error {
			return second(s.SetOffline(ctx, connect.NewRequest(&xosv1.SetOfflineRequest{Vo: "biology", Seconds: 3600})))
		},
		"remove": func(ctx context.Context) error {
			return second(s.RemoveMember(ctx, connect.NewRequest(&xosv1.RemoveMemberRequest{Vo: "biology", User: "eve", Fate: "freeze"})))
		},
	}
	peers := map[string]rpc.Peer{
		"nobody":                {},
		"a local user":          {Unix: true, UID: 1000, GID: 1000},
		"a VO's administrator":  {Chain: credtest.Chain(t, ca.X509User("eve@biology", credtest.Roles("admin"))), Address: "192.0.2.1:1"},
		"a machine":             {Chain: credtest.Chain(t, ca.Machine("node1", vom.ServiceNode))},
		"a core elsewhere":      {Chain: credtest.Chain(t, ca.Machine("core2", vom.ServiceCore))},
		"uid 0 that is no peer": {UID: 0, Chain: []*x509.Certificate{}},
	}
	before := f.Bundle()
	for who, p := range peers {
		for what, call := range calls {
			if err := call(rpc.WithPeer(t.Context(), p)); !xos.Is(err, xos.Permission) {
				t.Errorf("%s: %s: %v", who, what, err)
			}
		}
	}
	f.ok(f.Refresh(t.Context()))
	if f.Bundle().Epoch != before.Epoch {
		t.Error("something was changed")
	}
	denied, err := log.Query(audit.Filter{Denied: true, Last: 1000})
	if err != nil || len(denied) != len(peers)*len(calls) {
		t.Errorf("%d tries on record, want %d (%v)", len(denied), len(peers)*len(calls), err)
	}
	root := rpc.WithPeer(t.Context(), rpc.Peer{Unix: true, UID: 0})
	for _, what := range []string{"ban", "list", "lift", "removal", "offline", "remove"} {
		if err := calls[what](root); err != nil {
			t.Errorf("root: %s: %v", what, err)
		}
	}
}
