package xvoms_test

import (
	"slices"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

const key1 = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestBans(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	a, token := f.member("alice@physics")
	_, bobs := f.member("bob@physics")
	id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token, Key: key1}))
	delegated := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", id.NotAfter))
	refused := func(what string, ban vom.Ban, long time.Duration) {
		t.Helper()
		f.ok(second(f.AddBan(ctx, ban, long)))
		if _, ok := credential.Banned(f.Bundle().Bans, id, f.now()); !ok {
			t.Errorf("%s: not in the bundle", what)
		}
		if !slices.Contains(f.Bundle().RevokedSerials, id.Serial) {
			t.Errorf("%s: serial %s is not among %v", what, id.Serial, f.Bundle().RevokedSerials)
		}
		if _, err := f.Renew(ctx, id); !xos.Is(err, xos.Permission) || vom.RuleOf(err) != vom.RuleBan {
			t.Errorf("%s: renewed: %v", what, err)
		}
	}
	for _, ban := range []vom.Ban{{Kind: vom.BanUser, Subject: "alice", Reason: "left"}, {Kind: vom.BanAccount, Subject: "alice@physics"}} {
		refused(string(ban.Kind), ban, 0)
		f.ok(f.RemoveBan(ctx, ban.Kind, ban.Subject))
		if _, ok := credential.Banned(f.Bundle().Bans, id, f.now()); ok || len(f.Bundle().RevokedSerials) > 0 {
			t.Errorf("%s: lifted, and still in the bundle", ban.Kind)
		}
		f.ok(second(f.Renew(ctx, id)))
	}
	// A ban with an end ends.
	refused("for an hour", vom.Ban{Kind: vom.BanUser, Subject: "alice"}, time.Hour)
	f.pass(time.Hour)
	f.ok(second(f.Renew(ctx, id)))
	f.ok(f.Sweep(ctx))
	if list, err := f.ListBans(ctx); err != nil || len(list) != 0 {
		t.Errorf("bans %v, %v", list, err)
	}
	// A key takes with it what was delegated on account of it, for good.
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanKey, Subject: key1}, 0)))
	if _, err := f.Login(ctx, account("bob@physics"), vom.Proof{Token: bobs, Key: key1}); vom.RuleOf(err) != vom.RuleBan {
		t.Errorf("another's banned key was certified: %v", err)
	}
	f.ok(second(f.Login(ctx, account("bob@physics"), vom.Proof{Token: bobs, Key: "SHA256:other"}))) // the token was not spent
	f.ok(f.RemoveBan(ctx, vom.BanKey, key1))
	if !f.revoked(id) || !f.revoked(delegated) {
		t.Errorf("a banned key's certificates hold again: %v %v", f.revoked(id), f.revoked(delegated))
	}
}

func TestBansAreChecked(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	for _, b := range []vom.Ban{{}, {Kind: "vo", Subject: "physics"}, {Kind: vom.BanUser, Subject: "root"}, {Kind: vom.BanUser, Subject: "a/b"}, {Kind: vom.BanAccount, Subject: "alice"},
		{Kind: vom.BanKey, Subject: "SHA256:x"}, {Kind: vom.BanKey, Subject: "MD5:00"}, {Kind: vom.BanCertificate, Subject: "0"}, {Kind: vom.BanCertificate, Subject: "1e5"},
		{Kind: vom.BanUser, Subject: "alice", Reason: "two\nlines"}} {
		if _, err := f.AddBan(ctx, b, 0); !xos.Is(err, xos.Invalid) {
			t.Errorf("%+v: %v", b, err)
		}
	}
	if _, err := f.AddBan(ctx, vom.Ban{Kind: vom.BanUser, Subject: "alice"}, -1); !xos.Is(err, xos.Invalid) {
		t.Errorf("into the past: %v", err)
	}
	if err := f.RemoveBan(ctx, vom.BanUser, "alice"); !xos.Is(err, xos.NotFound) {
		t.Errorf("lifted without a ban: %v", err)
	}
}

func TestBannedMachine(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	claim := vom.MachineClaim{Node: "node1", Service: vom.ServiceNode, Key: [32]byte{1}}
	join := func() error {
		id, token, err := f.CreateJoinToken(ctx, 0, 0)
		f.ok(err)
		return second(f.Join(ctx, id, token.Secret, claim, "192.0.2.1"))
	}
	f.ok(join())
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanNode, Subject: "node1"}, 0)))
	if err := join(); vom.RuleOf(err) != vom.RuleBan {
		t.Errorf("joined again: %v", err)
	}
	if _, err := f.RenewMachine(ctx, claim, claim.Key, ""); vom.RuleOf(err) != vom.RuleBan {
		t.Errorf("renewed: %v", err)
	}
	if len(f.Bundle().RevokedSerials) != 1 {
		t.Errorf("serials %v", f.Bundle().RevokedSerials)
	}
	f.ok(second(f.CertifyCore(ctx, vom.MachineClaim{Node: "core", Service: vom.ServiceCore})))
	if _, err := f.AddBan(ctx, vom.Ban{Kind: vom.BanNode, Subject: "core"}, 0); !xos.Is(err, xos.Permission) {
		t.Errorf("the core was banned: %v", err)
	}
}

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
