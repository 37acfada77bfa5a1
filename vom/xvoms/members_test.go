package xvoms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/xvoms"
)

func TestTwiceAndNever(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	a, _ := f.member("alice@physics")
	for _, tt := range []struct {
		name string
		err  error
		want xos.Kind
	}{
		{"a VO twice", f.CreateVO(ctx, "physics"), xos.Exists},
		{"a user twice", second(f.CreateUser(ctx, "alice", "", "")), xos.Exists},
		{"a VO with members", f.DeleteVO(ctx, "physics", "by root"), xos.Conflict},
		{"an unknown member", f.RemoveMember(ctx, account("bob@physics"), "", "by root"), xos.NotFound},
		{"of an unknown VO", f.RemoveMember(ctx, account("alice@biology"), "", "by root"), xos.NotFound},
		{"the last member", f.RemoveMember(ctx, a, "", "by root"), 0},
		{"the last member again", f.RemoveMember(ctx, a, "", "by root"), xos.NotFound},
		{"the VO without members", f.DeleteVO(ctx, "physics", "by root"), 0},
		{"the VO again", f.DeleteVO(ctx, "physics", "by root"), xos.NotFound},
		{"into the VO that was", second(f.AddMember(ctx, a, nil, nil, "by root")), xos.NotFound},
		{"the user who was a member", f.DeleteUser(ctx, "alice", "by root"), 0},
		{"her name for another", second(f.CreateUser(ctx, "alice", "", "")), xos.Exists},
		{"the user again", f.DeleteUser(ctx, "alice", "by root"), xos.NotFound},
		{"a user without files", second(f.CreateUser(ctx, "eve", "", "")), 0},
		{"her end", f.DeleteUser(ctx, "eve", "by root"), 0},
		{"her name for another", second(f.CreateUser(ctx, "eve", "", "")), 0},
	} {
		if tt.want == 0 && tt.err != nil || tt.want != 0 && !xos.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

// Names that run into each other do not share a home, and a home stays.
func TestHomes(t *testing.T) {
	f := start(t)
	seen := map[xos.VolumeID]string{}
	for _, name := range []string{"c@a-b", "b-c@a", "c@a--b", "b--c@a", "b-c@a-b", "c@a-b-b"} {
		a, _ := f.member(name)
		home := xvoms.HomeVolume(a)
		if other := seen[home]; other != "" || f.made[home] != a {
			t.Errorf("%s has the home %s of %s%s", name, home, other, f.made[home])
		}
		seen[home] = name
	}
	a := account("c@a-b")
	f.fail = xos.Errorf(xos.Unavailable, "no storage")
	home, err := f.AddMember(t.Context(), a, []xos.GroupName{"g"}, nil, "by root")
	if err != nil || home != "home-a--b-c" {
		t.Errorf("a member with new groups: %q, %v", home, err)
	}
	if _, err := f.CreateUser(t.Context(), "dora", "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddMember(t.Context(), account("dora@a"), nil, nil, "by root"); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a member without a home: %v", err)
	}
	if list, err := f.ListMembers(t.Context(), "a"); err != nil || len(list) != 2 {
		t.Errorf("members %v, %v", list, err)
	}
	f.fail = nil
	if _, err := f.AddMember(t.Context(), account("dora@a"), nil, nil, "by root"); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

// Every way to lose something ends the certificates issued so far, and none
// issued later; what is gained ends nothing.
func TestRevocationsAndEpochs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		do      func(*fixture, xos.Account) error
		revokes bool
		bumps   bool
	}{
		{"removed", func(f *fixture, a xos.Account) error { return f.RemoveMember(f.t.Context(), a, "", "by root") }, true, true},
		{"deleted", func(f *fixture, a xos.Account) error { return f.DeleteUser(f.t.Context(), a.User, "by root") }, true, true},
		{"group lost", func(f *fixture, a xos.Account) error {
			return second(f.AddMember(f.t.Context(), a, nil, []xos.RoleName{"analyst"}, "by root"))
		}, true, true},
		{"role lost", func(f *fixture, a xos.Account) error {
			return second(f.AddMember(f.t.Context(), a, []xos.GroupName{"higgs"}, nil, "by root"))
		}, true, true},
		{"group gained", func(f *fixture, a xos.Account) error {
			return second(f.AddMember(f.t.Context(), a, []xos.GroupName{"higgs", "atlas"}, []xos.RoleName{"analyst"}, "by root"))
		}, false, true},
		{"another VO", func(f *fixture, a xos.Account) error { return f.CreateVO(f.t.Context(), "biology") }, false, true},
		{"policy", func(f *fixture, a xos.Account) error {
			return f.SetPolicy(f.t.Context(), a.VO, "permit (principal, action, resource);")
		}, false, true},
		{"password", func(f *fixture, a xos.Account) error { return f.SetPassword(f.t.Context(), a.User, "") }, false, false},
		{"token", func(f *fixture, a xos.Account) error { return second(f.CreateToken(f.t.Context(), a.User, 0)) }, false, false},
	} {
		f := start(t)
		ctx := t.Context()
		a, token := f.member("alice@physics")
		must[xos.VolumeID](t)(f.AddMember(ctx, a, []xos.GroupName{"higgs"}, []xos.RoleName{"analyst"}, "by root"))
		bob, bobs := f.member("bob@physics")
		id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token}))
		other := must[vom.Identity](t)(f.Login(ctx, bob, vom.Proof{Token: bobs}))
		delegated := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", vom.Origin{Until: id.NotAfter}, id.NotAfter))
		before := f.Bundle().Epoch
		// The clock goes back: it must not help an old certificate.
		f.pass(-time.Hour)
		f.ok(tt.do(f, a))
		if got := f.Bundle().Epoch > before; got != tt.bumps {
			t.Errorf("%s: epoch %d after %d", tt.name, f.Bundle().Epoch, before)
		}
		if f.revoked(id) != tt.revokes || f.revoked(delegated) != tt.revokes || f.revoked(other) {
			t.Errorf("%s: revoked %v, delegated %v, bob %v", tt.name, f.revoked(id), f.revoked(delegated), f.revoked(other))
		}
		if strings.HasSuffix(tt.name, "lost") {
			if again := must[vom.Identity](t)(f.Renew(ctx, id)); f.revoked(again) {
				t.Errorf("%s: the new certificate is refused", tt.name)
			}
		}
		if tt.name == "removed" {
			must[xos.VolumeID](t)(f.AddMember(ctx, a, nil, nil, "by root"))
			if again := must[vom.Identity](t)(f.Renew(ctx, id)); f.revoked(again) || !f.revoked(id) {
				t.Errorf("added again: new one revoked %v, old one %v", f.revoked(again), f.revoked(id))
			}
		}
	}
}

// What was revoked stays so until it would have expired anyway; then it is
// forgotten, but not what is still of use.
func TestSweep(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.open(xvoms.Config{MachineTTL: time.Hour}) // shorter than users' certificates
	a, token := f.member("alice@physics")
	id := must[vom.Identity](t)(f.Login(ctx, a, vom.Proof{Token: token}))
	spare := must[xvoms.Token](t)(f.CreateToken(ctx, "alice", time.Hour))
	f.ok(f.Revoke(ctx, id.Serial, id.Issued, "lost"))
	join, secret, err := f.CreateJoinToken(ctx, 0, 1)
	f.ok(err)
	must[vom.MachineGrant](t)(f.Join(ctx, join, secret.Secret, vom.MachineClaim{Node: "node1", Service: vom.ServiceNode}, ""))
	delegated := must[vom.Identity](t)(f.Renew(ctx, vom.Identity{Attributes: id.Attributes}))
	delegated.Node = "node1"
	f.ok(f.RemoveMachine(ctx, "node1", "", "by root"))
	f.pass(11*time.Hour + 50*time.Minute)
	f.ok(f.Sweep(ctx))
	f.open(xvoms.Config{MachineTTL: time.Hour})
	if !f.now().Before(id.NotAfter) || !f.revoked(id) || !f.revoked(delegated) {
		t.Errorf("forgotten while still valid: %v, %v", f.revoked(id), f.revoked(delegated))
	}
	if _, err := f.Login(ctx, a, vom.Proof{Token: spare.Secret}); !xos.Is(err, xos.Permission) {
		t.Errorf("an expired token that was swept: %v", err)
	}
	if _, lines, err := f.Explain(ctx, "", id.Serial); err != nil || !strings.Contains(strings.Join(lines, "\n"), "lost") {
		t.Errorf("explain: %q, %v", lines, err)
	}
	f.pass(40 * 24 * time.Hour)
	f.ok(f.Sweep(ctx))
	f.open(xvoms.Config{MachineTTL: time.Hour})
	if d := cmp.Diff(0, len(f.Bundle().Revocations)); d != "" {
		t.Errorf("remembered for ever: %v", f.Bundle().Revocations)
	}
	if list, err := f.ListMembers(ctx, "physics"); err != nil || len(list) != 1 {
		t.Errorf("members after a sweep: %v, %v", list, err)
	}
}
