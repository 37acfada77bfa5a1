package xvoms_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// A removed member's fate is her VO's policy; who comes back in time with all
// that she had is who she was.
func TestRemovalFates(t *testing.T) {
	group := []xos.GroupName{"higgs"}
	for _, tt := range []struct {
		name     string
		policy   vom.Removal
		fate     vom.Fate // in its place
		want     vom.Fate
		groups   []xos.GroupName // when she comes back
		after    time.Duration
		restored bool
	}{
		{"default", vom.Removal{}, "", "", group, 0, false},
		{"frozen, back in time", vom.Removal{Fate: vom.FateFreeze, For: time.Hour}, "", vom.FateFreeze, group, 59 * time.Minute, true},
		{"back with more", vom.Removal{Fate: vom.FateFreeze, For: time.Hour}, "", vom.FateFreeze, []xos.GroupName{"atlas", "higgs"}, 0, true},
		{"back too late", vom.Removal{Fate: vom.FateFreeze, For: time.Hour}, "", vom.FateFreeze, group, time.Hour + time.Second, false},
		{"back with less", vom.Removal{Fate: vom.FateFreeze, For: time.Hour}, "", vom.FateFreeze, nil, 0, false},
		{"finishing, back", vom.Removal{Fate: vom.FateFinish}, "", vom.FateFinish, group, 0, true},
		{"ended against the policy", vom.Removal{Fate: vom.FateFreeze}, vom.FateEnd, "", group, 0, false},
		{"frozen against the policy", vom.Removal{}, vom.FateFreeze, vom.FateFreeze, group, 0, true},
	} {
		f := start(t)
		ctx := t.Context()
		a, token := f.member("alice@physics")
		f.ok(second(f.AddMember(ctx, a, group, nil, "by root")))
		older := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token}))
		// What she lost earlier stays lost.
		f.ok(second(f.AddMember(ctx, a, nil, nil, "by root")))
		f.ok(second(f.AddMember(ctx, a, group, nil, "by root")))
		id := must[vom.Identity](t)(f.Renew(ctx, older))
		if tt.policy != (vom.Removal{}) {
			f.ok(second(f.SetRemoval(ctx, "physics", tt.policy)))
		}
		f.ok(f.RemoveMemberTo(ctx, a, tt.fate, "", "by root"))
		r, ok := credential.Revoked(f.Bundle().Revocations, id)
		if !ok || r.Fate != tt.want {
			t.Errorf("%s: fate %q (%v), want %q", tt.name, r.Fate, ok, tt.want)
		}
		if !slices.Contains(f.Bundle().RevokedSerials, id.Serial) {
			t.Errorf("%s: serial missing", tt.name)
		}
		f.pass(tt.after)
		f.ok(second(f.AddMember(ctx, a, tt.groups, nil, "by root")))
		if f.revoked(id) == tt.restored {
			t.Errorf("%s: revoked %v", tt.name, f.revoked(id))
		}
		if r, ok := credential.Revoked(f.Bundle().Revocations, id); ok && r.Leaves(f.now()) != vom.FateEnd {
			t.Errorf("%s: one who is back is still %s", tt.name, r.Fate)
		}
		if !f.revoked(older) {
			t.Errorf("%s: a certificate from before an earlier loss holds again", tt.name)
		}
		// And removed again, nothing from before holds.
		f.ok(f.RemoveMember(ctx, a, "", "by root"))
		if !f.revoked(id) || !f.revoked(older) {
			t.Errorf("%s: the second removal missed something", tt.name)
		}
	}
}

func TestRemovalPolicies(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.ok(f.CreateVO(ctx, "physics"))
	for _, p := range []vom.Removal{{Fate: "burn"}, {Fate: vom.FateEnd, For: time.Hour}, {Fate: vom.FateFreeze, For: 13 * time.Hour}, {Fate: vom.FateFinish, For: -1}} {
		if _, err := f.SetRemoval(ctx, "physics", p); !xos.Is(err, xos.Invalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := f.SetRemoval(ctx, "biology", vom.Removal{}); !xos.Is(err, xos.NotFound) {
		t.Errorf("of no VO: %v", err)
	}
	if err := f.SetOffline(ctx, "physics", 29*time.Second); !xos.Is(err, xos.Invalid) {
		t.Error(err)
	}
	b := f.Bundle()
	if got := b.ServesUntil("physics").Sub(b.Issued); got != 24*time.Hour {
		t.Errorf("without a policy served for %v", got)
	}
	f.ok(f.SetOffline(ctx, "physics", time.Hour))
	b = f.Bundle()
	if got := b.ServesUntil("physics").Sub(b.Issued); got != time.Hour {
		t.Errorf("served for %v", got)
	}
	f.ok(f.SetOffline(ctx, "physics", 300*24*time.Hour))
	b = f.Bundle()
	if got := b.ServesUntil("physics").Sub(b.Issued); got != 24*time.Hour {
		t.Errorf("longer than the core says: %v", got)
	}
}

// TestIsolation: every machine hears of a VO's policy of isolation; one that is
// not good is refused with its line, and the old one stays.
func TestIsolation(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.ok(f.CreateVO(ctx, "physics"))
	heard := func() string { return f.Bundle().VOs[0].Isolation }
	good := "[share]\nnetwork = [\"chemistry\"]\n"
	f.ok(f.SetIsolation(ctx, "physics", good, ""))
	if heard() != good {
		t.Errorf("machines hear %q", heard())
	}
	epoch := f.Bundle().Epoch
	err := f.SetIsolation(ctx, "physics", "[share]\nnetwork = [\"*\"]\nkernel = [\"*\"]\n", "")
	if !xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a bad one: %v", err)
	}
	if heard() != good || f.Bundle().Epoch != epoch {
		t.Errorf("after a bad one machines hear %q", heard())
	}
	f.ok(f.SetPolicy(ctx, "physics", "")) // the one is not the other
	if heard() != good {
		t.Errorf("after another change machines hear %q", heard())
	}
	f.ok(f.SetIsolation(ctx, "physics", "", ""))
	if heard() != "" {
		t.Errorf("after it was taken away machines hear %q", heard())
	}
}
