package vops_test

import (
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/vops"
)

func TestDelegation(t *testing.T) {
	var policy string
	epoch := uint64(0)
	d, err := vops.New(func() vom.Bundle {
		return vom.Bundle{Epoch: epoch, VOs: []vom.VO{{Name: "physics", Policy: policy}}}
	}, vops.Site{VOs: []xos.VOName{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	alice := vom.Identity{Attributes: xos.Attributes{Account: xos.Account{User: "alice", VO: "physics"}, Roles: []xos.RoleName{"analyst"}}}
	vouched, signed := vom.Origin{Mode: vom.Vouched, Depth: 1}, vom.Origin{Mode: vom.Signed, Depth: 2}
	for _, tt := range []struct {
		name, policy string
		action       vom.Action
		from         vom.Origin
		allow        bool
		longest      time.Duration
	}{
		{"no policy", "", vom.ActionDelegate, vouched, true, 0},
		{"no policy, on", "", vom.ActionSSO, vouched, true, 0},
		{"one that speaks of logins only", `permit (principal, action == Action::"login", resource);`, vom.ActionSSO, vouched, true, 0},
		{"one that permits nothing", `forbid (principal, action == Action::"login", resource);`, vom.ActionDelegate, vouched, true, 0},
		{"forbidden", `forbid (principal, action == Action::"sso", resource);`, vom.ActionSSO, vouched, false, 0},
		{"the other forbidden", `forbid (principal, action == Action::"sso", resource);`, vom.ActionDelegate, vouched, true, 0},
		{"signatures wanted, none", `forbid (principal, action == Action::"delegate", resource) when { context.mode == "vouched" };`, vom.ActionDelegate, vouched, false, 0},
		{"signatures wanted, one", `forbid (principal, action == Action::"delegate", resource) when { context.mode == "vouched" };`, vom.ActionDelegate, signed, true, 0},
		{"too far", `forbid (principal, action == Action::"sso", resource) when { context.depth > 1 };`, vom.ActionSSO, signed, false, 0},
		{"not too far", `forbid (principal, action == Action::"sso", resource) when { context.depth > 1 };`, vom.ActionSSO, vouched, true, 0},
		{"on another node", `forbid (principal, action == Action::"sso", resource == Node::"node9");`, vom.ActionSSO, vouched, true, 0},
		{"cannot be evaluated", `forbid (principal, action == Action::"sso", resource) when { context.nothing };`, vom.ActionSSO, vouched, false, 0},
		{"for a while", `@validity("15m") permit (principal, action == Action::"delegate", resource);`, vom.ActionDelegate, vouched, true, 15 * time.Minute},
		{"the shorter", `@validity("15m") permit (principal, action, resource); @validity("5m") permit (principal, action, resource) when { principal.roles.contains("analyst") };`, vom.ActionDelegate, vouched, true, 5 * time.Minute},
		{"one that does not apply", `@validity("15m") permit (principal, action, resource) when { principal.roles.contains("boss") };`, vom.ActionDelegate, vouched, true, 0},
	} {
		policy, epoch = tt.policy, epoch+1
		got, longest := d.Delegation(t.Context(), alice, tt.action, "node1", tt.from)
		if got.Allow != tt.allow || longest != tt.longest || got.Reason == "" {
			t.Errorf("%s: %+v, %v", tt.name, got, longest)
		}
	}
	other := alice
	other.VO = "chemistry"
	if got, _ := d.Delegation(t.Context(), other, vom.ActionDelegate, "node1", vouched); got.Allow {
		t.Errorf("of a VO that is not there: %+v", got)
	}
	for _, bad := range []string{`@validity("long") permit (principal, action, resource);`, `@validity("1s") permit (principal, action, resource);`,
		`@validity("-5m") permit (principal, action, resource);`, `@validity("5m") forbid (principal, action, resource);`, `@validity permit (principal, action, resource);`} {
		if err := vops.Check(bad); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Who comes from another machine's session can be told from who shows her own.
func TestFrom(t *testing.T) {
	d, err := vops.New(func() vom.Bundle { return vom.Bundle{VOs: []vom.VO{{Name: "physics"}}} }, vops.Site{VOs: []xos.VOName{"*"},
		Policy: `forbid (principal, action == Action::"login", resource) when { context.from != "" };`})
	if err != nil {
		t.Fatal(err)
	}
	who := vom.Identity{Attributes: xos.Attributes{Account: xos.Account{User: "alice", VO: "physics"}}}
	if got := d.Decide(t.Context(), who, vom.ActionLogin, "node2"); !got.Allow {
		t.Errorf("with her own: %+v", got)
	}
	who.Node = "node1"
	if got := d.Decide(t.Context(), who, vom.ActionLogin, "node2"); got.Allow {
		t.Errorf("from a session: %+v", got)
	}
}
