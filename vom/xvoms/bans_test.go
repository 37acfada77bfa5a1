package xvoms_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

const (
	key1 = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	key2 = "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA"
)

func TestBans(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	a, token := f.member("alice@physics")
	_, bobs := f.member("bob@physics")
	id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token, Key: key1}))
	delegated := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", vom.Origin{Until: id.NotAfter}, id.NotAfter))
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
	// Machines would not hear from a banned core that it is not banned any more.
	core := must[vom.MachineGrant](t)(f.CertifyCore(ctx, vom.MachineClaim{Node: "core", Service: vom.ServiceCore, Fingerprint: key1}))
	for _, ban := range []vom.Ban{{Kind: vom.BanNode, Subject: "core"}, {Kind: vom.BanKey, Subject: key1}, {Kind: vom.BanCertificate, Subject: core.Serial}} {
		if _, err := f.AddBan(ctx, ban, 0); !xos.Is(err, xos.Permission) {
			t.Errorf("the core was banned by %s: %v", ban.Kind, err)
		}
	}
	// A banned key makes no machine either, of whatever name.
	f.ok(second(f.AddBan(ctx, vom.Ban{Kind: vom.BanKey, Subject: key2}, 0)))
	claim = vom.MachineClaim{Node: "node2", Service: vom.ServiceNode, Key: [32]byte{2}, Fingerprint: key2}
	if err := join(); vom.RuleOf(err) != vom.RuleBan {
		t.Errorf("joined with a banned key: %v", err)
	}
}

// Who bans a key and dies has banned it, and what was delegated on account of
// it ends all the same.
func TestBanOfAKeyThatDies(t *testing.T) {
	for updates := range 4 {
		f := start(t)
		ctx := t.Context()
		a, token := f.member("alice@physics")
		id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token, Key: key1}))
		delegated := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", vom.Origin{Until: id.NotAfter}, id.NotAfter))
		b := &brittle{Store: f.db}
		b.left.Store(100)
		r, err := xvoms.New(ctx, xvoms.Config{Now: f.now}, b, f, vops.Check)
		f.ok(err)
		b.left.Store(int64(updates))
		_, err = r.AddBan(ctx, vom.Ban{Kind: vom.BanKey, Subject: key1}, 0)
		if died := updates < 3; died != (err != nil) {
			t.Fatalf("at %d: %v", updates, err)
		}
		f.open(xvoms.Config{})
		f.ok(f.Sweep(ctx))
		if banned := len(f.Bundle().Bans) == 1; f.revoked(delegated) != banned || banned != (updates > 1) {
			t.Errorf("dead at %d: banned %v, what was delegated is revoked %v", updates, banned, f.revoked(delegated))
		}
	}
}

// A ban that is made lasting while its first end is swept stays.
func TestSweptAndBannedAgain(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	ban := vom.Ban{Kind: vom.BanUser, Subject: "alice"}
	f.ok(second(f.AddBan(ctx, ban, time.Minute)))
	f.pass(time.Hour)
	b := &meanwhile{Store: f.db}
	r, err := xvoms.New(ctx, xvoms.Config{Now: f.now}, b, f, vops.Check)
	f.ok(err)
	b.do = func() { f.ok(second(f.AddBan(ctx, ban, 0))) }
	f.ok(r.Sweep(ctx))
	f.ok(r.Sweep(ctx))
	if list, err := f.ListBans(ctx); err != nil || len(list) != 1 {
		t.Errorf("bans %v, %v", list, err)
	}
}

// meanwhile does something before the next update.
type meanwhile struct {
	kv.Store
	do func()
}

func (m *meanwhile) Update(ctx context.Context, f func(kv.Txn) error) error {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.Store.Update(ctx, f)
}
