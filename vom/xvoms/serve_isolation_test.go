package xvoms_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
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

// TestWhoMaySetIsolation: who administers a VO sets its policy, its members see
// it, nobody else does either, and each try is on record but a member's to see it.
func TestWhoMaySetIsolation(t *testing.T) {
	f := start(t)
	for _, name := range []string{"alice@physics", "eve@biology"} {
		f.member(name)
	}
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.log"))
	f.ok(err)
	defer log.Close()
	ca, other := credtest.New(t), credtest.New(t)
	s := xvoms.NewService(f.Records, ca.Verifier(), log, slog.New(slog.DiscardHandler))
	get := func(ctx context.Context, vo string) error {
		return second(s.GetIsolation(ctx, connect.NewRequest(&xosv1.GetIsolationRequest{Vo: vo})))
	}
	set := func(ctx context.Context, vo string) error {
		return second(s.SetIsolation(ctx, connect.NewRequest(&xosv1.SetIsolationRequest{Vo: vo, Isolation: "forbid = []"})))
	}
	admin := credtest.Roles("admin")
	tries, refused := 0, 0
	for who, c := range map[string]struct {
		peer     rpc.Peer
		see, set bool
	}{
		"root":                             {rpc.Peer{Unix: true}, true, true},
		"a local user":                     {rpc.Peer{Unix: true, UID: 1000}, false, false},
		"nobody":                           {rpc.Peer{}, false, false},
		"uid 0 that is no peer":            {rpc.Peer{UID: 0}, false, false},
		"its administrator":                {rpc.Peer{Chain: credtest.Chain(t, ca.X509User("eve@biology", admin))}, true, true},
		"its administrator's delegate":     {rpc.Peer{Chain: credtest.Chain(t, ca.Delegated("eve@biology", "node1", admin))}, true, false},
		"a member":                         {rpc.Peer{Chain: credtest.Chain(t, ca.X509User("eve@biology"))}, true, false},
		"another VO's administrator":       {rpc.Peer{Chain: credtest.Chain(t, ca.X509User("alice@physics", admin))}, false, false},
		"an administrator of another grid": {rpc.Peer{Chain: credtest.Chain(t, other.X509User("eve@biology", admin))}, false, false},
		"a machine":                        {rpc.Peer{Chain: credtest.Chain(t, ca.Machine("node1", vom.ServiceNode))}, false, false},
	} {
		ctx := rpc.WithPeer(t.Context(), c.peer)
		for what, call := range map[string]struct {
			err  error
			want bool
		}{"see": {get(ctx, "biology"), c.see}, "set": {set(ctx, "biology"), c.set}} {
			tries++
			if !call.want {
				refused++
			}
			if (call.err == nil) != call.want || call.err != nil && !xos.Is(call.err, xos.Permission) && !xos.Is(call.err, xos.Invalid) {
				t.Errorf("%s: %s: %v, may: %v", who, what, call.err, call.want)
			}
		}
		// Whether there is such a VO is nobody's business.
		if err := get(ctx, "nobodys"); who != "root" && xos.Is(err, xos.NotFound) {
			t.Errorf("%s learns that there is no such VO", who)
		}
	}
	all, err := log.Query(audit.Filter{VO: "biology", Last: 1000})
	if err != nil || slices.ContainsFunc(all, func(e audit.Entry) bool { return e.Allowed && e.Detail["version"] == "" }) {
		t.Errorf("what was read by who may is on record: %v, %v", all, err)
	}
	denied, err := log.Query(audit.Filter{Denied: true, VO: "biology", Last: 1000})
	if err != nil || len(denied) != refused {
		t.Errorf("%d refusals on record, want %d of %d tries (%v)", len(denied), refused, tries, err)
	}
}

// TestIsolationIsNotLost: who has not seen the newest text does not replace it.
func TestIsolationIsNotLost(t *testing.T) {
	f := start(t)
	f.member("eve@biology")
	ctx := t.Context()
	empty := xvoms.IsolationVersion("")
	const mine, hers = "forbid = [\"perf\"]", "forbid = [\"setuid\"]"
	f.ok(f.SetIsolation(ctx, "biology", mine, empty))
	if err := f.SetIsolation(ctx, "biology", hers, empty); !xos.Is(err, xos.Conflict) {
		t.Errorf("a text that nobody has seen was replaced: %v", err)
	}
	if text, err := f.Isolation(ctx, "biology"); err != nil || text != mine {
		t.Errorf("%q, %v", text, err)
	}
	f.ok(f.SetIsolation(ctx, "biology", hers, xvoms.IsolationVersion(mine)))
	if text, err := f.Isolation(ctx, "biology"); err != nil || text != hers {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := f.Isolation(ctx, "nobodys"); !xos.Is(err, xos.NotFound) {
		t.Errorf("%v", err)
	}
}
