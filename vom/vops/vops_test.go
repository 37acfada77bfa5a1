package vops_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/vops"
)

const (
	permitAll = `permit (principal, action, resource);`
	forbidAll = `forbid (principal, action, resource);`
)

// demandA is a VO's that lets its jobs run at level A only.
const demandA = permitAll + `forbid (principal, action == Action::"run", resource) unless { resource.isolation == "A" };`

func level(l string) func() string { return func() string { return l } }

func who(name string, groups ...xos.GroupName) vom.Identity {
	user, vo, _ := strings.Cut(name, "@")
	return vom.Identity{Attributes: xos.Attributes{Account: xos.Account{User: xos.UserID(user), VO: xos.VOName(vo)},
		Groups: groups, Roles: []xos.RoleName{"analyst"}}}
}

func bundle(policies map[xos.VOName]string) func() vom.Bundle {
	b := vom.Bundle{Epoch: 1}
	for vo, p := range policies {
		b.VOs = append(b.VOs, vom.VO{Name: vo, Policy: p})
	}
	return func() vom.Bundle { return b }
}

func TestDecisions(t *testing.T) {
	all := vops.Site{VOs: []xos.VOName{"*"}}
	for _, tt := range []struct {
		name     string
		site     vops.Site
		policies map[xos.VOName]string
		who      vom.Identity
		action   vom.Action
		want     bool
		rule     string // one of the decision's
		reason   string // part of it
	}{
		{"default policy", all, map[xos.VOName]string{"physics": ""}, who("alice@physics"), vom.ActionLogin, true, "vo/physics/policy0", "permits"},
		{"default policy, a job", all, map[xos.VOName]string{"physics": ""}, who("alice@physics"), vom.ActionRun, true, "", ""},
		{"default policy, anything else", all, map[xos.VOName]string{"physics": ""}, who("alice@physics"), "reboot", false, "", "no policy"},
		{"no action", all, map[xos.VOName]string{"physics": ""}, who("alice@physics"), "", false, "", "no policy"},
		{"no VO of the name", all, map[xos.VOName]string{"physics": ""}, who("alice@biology"), vom.ActionLogin, false, "vo/policy", "no VO"},
		{"nobody", all, map[xos.VOName]string{"physics": ""}, vom.Identity{}, vom.ActionLogin, false, "", ""},
		{"a machine that serves none", vops.Site{}, map[xos.VOName]string{"physics": ""}, who("alice@physics"), vom.ActionLogin, false, "site/vos", "does not serve"},
		{"a machine that serves others", vops.Site{VOs: []xos.VOName{"chemistry"}}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, false, "site/vos", ""},
		{"a policy without words", all, map[xos.VOName]string{"physics": " // nothing\n"}, who("alice@physics"), vom.ActionLogin, false, "", "no policy"},
		{"forbid wins", all, map[xos.VOName]string{"physics": permitAll + forbidAll}, who("alice@physics"), vom.ActionLogin, false, "vo/physics/policy1", "forbids"},
		{"forbid wins, first", all, map[xos.VOName]string{"physics": forbidAll + permitAll}, who("alice@physics"), vom.ActionLogin, false, "vo/physics/policy0", "forbids"},
		{"the site forbids", vops.Site{VOs: all.VOs, Policy: forbidAll}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, false, "site/policy0", "owner"},
		{"the site forbids one action", vops.Site{VOs: all.VOs, Policy: `forbid (principal, action == Action::"run", resource);`}, map[xos.VOName]string{"physics": ""}, who("alice@physics"), vom.ActionLogin, true, "", ""},
		{"banned account", vops.Site{VOs: all.VOs, Banned: []string{"alice@physics"}}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, false, "site/banned", "banned"},
		{"banned user", vops.Site{VOs: all.VOs, Banned: []string{"alice"}}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, false, "site/banned", ""},
		{"the level that is demanded", vops.Site{VOs: all.VOs, Isolation: level("A")}, map[xos.VOName]string{"physics": demandA}, who("alice@physics"), vom.ActionRun, true, "", ""},
		{"another level", vops.Site{VOs: all.VOs, Isolation: level("C")}, map[xos.VOName]string{"physics": demandA}, who("alice@physics"), vom.ActionRun, false, "vo/physics/policy1", "forbids"},
		{"another level, and a login", vops.Site{VOs: all.VOs, Isolation: level("C")}, map[xos.VOName]string{"physics": demandA}, who("alice@physics"), vom.ActionLogin, true, "", ""},
		{"a machine that tells no level", all, map[xos.VOName]string{"physics": demandA}, who("alice@physics"), vom.ActionRun, false, "vo/policy", "cannot be evaluated"},
		{"the site demands a level", vops.Site{VOs: all.VOs, Isolation: level("none"), Policy: `forbid (principal, action, resource) when { resource.isolation == "none" };`}, map[xos.VOName]string{"physics": ""}, who("alice@physics"), vom.ActionLogin, false, "site/policy0", "owner"},
		{"banned elsewhere", vops.Site{VOs: all.VOs, Banned: []string{"alice@chemistry", "alic"}}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, true, "", ""},
		{"another VO's permission", all, map[xos.VOName]string{"physics": forbidAll, "chemistry": permitAll}, who("alice@physics"), vom.ActionLogin, false, "", "VO physics forbids"},
		{"another VO's permission by name", all, map[xos.VOName]string{"physics": " ", "chemistry": `permit (principal == User::"alice@physics", action, resource);`}, who("alice@physics"), vom.ActionLogin, false, "", "no policy"},
		{"another VO's prohibition", all, map[xos.VOName]string{"physics": "", "chemistry": `forbid (principal == User::"alice@physics", action, resource);`}, who("alice@physics"), vom.ActionLogin, true, "", ""},
		{"by group", all, map[xos.VOName]string{"physics": `permit (principal, action, resource) when { principal.groups.contains("higgs") };`}, who("alice@physics", "higgs"), vom.ActionLogin, true, "", ""},
		{"by group, of another", all, map[xos.VOName]string{"physics": `permit (principal, action, resource) when { principal.groups.contains("higgs") };`}, who("alice@physics", "atlas"), vom.ActionLogin, false, "", ""},
		{"by role and machine", all, map[xos.VOName]string{"physics": `permit (principal, action, resource == Node::"node1") when { principal.roles.contains("analyst") };`}, who("alice@physics"), vom.ActionLogin, true, "", ""},
		{"by another machine", all, map[xos.VOName]string{"physics": `permit (principal, action, resource == Node::"node2");`}, who("alice@physics"), vom.ActionLogin, false, "", ""},
		{"a name that looks like a rule", all, map[xos.VOName]string{"physics": `permit (principal == User::"alice@physics", action, resource);`}, who(`alice@physics" || true //@physics`), vom.ActionLogin, false, "", ""},
		{"a prohibition that fails", all, map[xos.VOName]string{"physics": permitAll + `forbid (principal, action, resource) when { principal.nothing == 1 };`}, who("alice@physics"), vom.ActionLogin, false, "vo/policy", "cannot be evaluated"},
		{"the site's prohibition fails", vops.Site{VOs: all.VOs, Policy: `forbid (principal, action, resource) when { principal.nothing };`}, map[xos.VOName]string{"physics": permitAll}, who("alice@physics"), vom.ActionLogin, false, "site/policy", "cannot be evaluated"},
		{"a policy that became none", all, map[xos.VOName]string{"physics": permitAll + "x"}, who("alice@physics"), vom.ActionLogin, false, "vo/policy", ""},
		{"another VO's policy is none", all, map[xos.VOName]string{"physics": "", "chemistry": "x"}, who("alice@physics"), vom.ActionLogin, true, "", ""},
	} {
		d, err := vops.New(bundle(tt.policies), tt.site)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := d.Decide(t.Context(), tt.who, tt.action, "node1")
		if got.Allow != tt.want || got.Reason == "" || !strings.Contains(got.Reason, tt.reason) || got.Policy == "" {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if tt.rule != "" && (len(got.Rules) == 0 || got.Rules[len(got.Rules)-1] != tt.rule) {
			t.Errorf("%s: decided by %v, want %s", tt.name, got.Rules, tt.rule)
		}
	}
}

func TestWritingPolicies(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		want         xos.Kind
		at           string // line:column
	}{
		{"a good one", permitAll + "\n" + forbidAll, 0, ""},
		{"no end", "permit (principal, action, resource)", xos.Invalid, "1:37"},
		{"third line", permitAll + "\nforbid (principal,\n  action resource);", xos.Invalid, "3:18"},
		{"no such word", permitAll + "\n\n  allow (principal, action, resource);", xos.Invalid, "3:9"},
		{"half a condition", "permit (principal, action, resource) when { principal.user == };", xos.Invalid, "1:64"},
		{"no such function", "permit (principal, action, resource) when { system(1) };", xos.Invalid, "1:"},
		{"a template", "permit (principal == ?principal, action, resource);", xos.Invalid, "1:"},
		{"a NUL", "permit\x00", xos.Invalid, "1:"},
		{"too large", strings.Repeat(permitAll, 2000), xos.TooLarge, ""},
		{"a number too large", "permit (principal, action, resource) when { 99999999999999999999 == 1 };", xos.Invalid, ""},
	} {
		err := vops.Check(tt.policy)
		if tt.want == 0 && err != nil || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && !strings.Contains(err.Error(), tt.at) {
			t.Errorf("%s: %v does not say %s", tt.name, err, tt.at)
		}
	}
	for name, policy := range map[string]string{
		"that permits": permitAll, "that permits too": forbidAll + permitAll, "that is none": "forbid", "that is large": strings.Repeat(forbidAll, 2000),
	} {
		if _, err := vops.New(bundle(nil), vops.Site{Policy: policy}); err == nil {
			t.Errorf("a site's policy %s", name)
		}
	}
}

// A new epoch's policy counts at once, for whoever asks at the same time.
func TestPolicyFollowsTheBundle(t *testing.T) {
	var epoch atomic.Uint64
	d, err := vops.New(func() vom.Bundle {
		b := vom.Bundle{Epoch: epoch.Load()}
		b.VOs = []vom.VO{{Name: "physics", Policy: permitAll}}
		if b.Epoch%2 == 1 {
			b.VOs[0].Policy = forbidAll
		}
		return b
	}, vops.Site{VOs: []xos.VOName{"physics"}})
	if err != nil {
		t.Fatal(err)
	}
	for e := range uint64(50) {
		epoch.Store(e)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if got := d.Decide(t.Context(), who("alice@physics"), vom.ActionLogin, "node1"); got.Allow != (e%2 == 0) {
					t.Errorf("epoch %d: %+v", e, got)
				}
			})
		}
		wg.Wait()
	}
	if !d.Serves("physics") || d.Serves("chemistry") {
		t.Error("serves the wrong VOs")
	}
}

// A VO that the owner lists but the grid has not is not served.
func TestServes(t *testing.T) {
	d, err := vops.New(bundle(map[xos.VOName]string{"physics": ""}), vops.Site{VOs: []xos.VOName{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Serves("physics") || d.Serves("biology") || d.Serves("*") || d.Serves("") {
		t.Error("serves the wrong VOs")
	}
}

// Whatever is written, it is refused or it decides; a site's permission is
// never accepted, and a prohibition added to a policy is never undone by it.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{"", permitAll, forbidAll, permitAll + forbidAll, `permit (principal in User::"x", action, resource) when { principal.roles.contains("a") } unless { ip("::1").isLoopback() };`,
		"@id(\"x\")" + permitAll, "permit(", strings.Repeat("(", 500), `permit (principal, action, resource) when { {a: [1, -2, "\u{1F600}"]}.a.contains(1) };`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, policy string) {
		if err := vops.Check(policy); err != nil {
			if !xos.Is(err, xos.Invalid) && !xos.Is(err, xos.TooLarge) {
				t.Fatalf("%v", err)
			}
			return
		}
		d, err := vops.New(bundle(map[xos.VOName]string{"physics": policy + "\n" + forbidAll, "chemistry": policy}), vops.Site{VOs: []xos.VOName{"*"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Decide(t.Context(), who("alice@physics"), vom.ActionLogin, "node1"); got.Allow {
			t.Fatalf("%q undid a prohibition: %+v", policy, got)
		}
		d.Decide(t.Context(), who("alice@chemistry"), vom.ActionLogin, "node1")
		if site, err := vops.New(bundle(map[xos.VOName]string{"physics": " "}), vops.Site{VOs: []xos.VOName{"*"}, Policy: policy}); err == nil {
			if got := site.Decide(t.Context(), who("alice@physics"), vom.ActionLogin, "node1"); got.Allow {
				t.Fatalf("a site permits: %q", policy)
			}
		}
	})
}
