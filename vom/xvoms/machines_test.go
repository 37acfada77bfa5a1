package xvoms_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

func claim(node xos.NodeID, key byte, addresses ...string) vom.MachineClaim {
	c := vom.MachineClaim{Node: node, Service: vom.ServiceNode, Key: [32]byte{key}}
	for _, a := range addresses {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	return c
}

func TestJoin(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	id, token, err := f.CreateJoinToken(ctx, time.Minute, 2)
	f.ok(err)
	join := func(id, secret string, c vom.MachineClaim) error {
		return second(f.Join(ctx, id, secret, c, "10.0.0.1:1"))
	}
	storage, core := claim("node1", 1), claim("node1", 1)
	storage.Service, core.Service = "printer", vom.ServiceCore
	crowd := claim("node1", 1)
	for i := range 17 {
		crowd.Addresses = append(crowd.Addresses, netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}))
	}
	for _, tt := range []struct {
		name string
		err  error
		want xos.Kind
	}{
		{"no token", join("", "", claim("node1", 1)), xos.Permission},
		{"a wrong secret", join(id, token.Secret+"x", claim("node1", 1)), xos.Permission},
		{"no secret", join(id, "", claim("node1", 1)), xos.Permission},
		{"a wrong token", join("abcdefgh", token.Secret, claim("node1", 1)), xos.Permission},
		{"a path", join("../join/"+id, token.Secret, claim("node1", 1)), xos.Permission},
		{"an unknown service", join(id, token.Secret, storage), xos.Invalid},
		{"a core", join(id, token.Secret, core), xos.Invalid},
		{"17 addresses", join(id, token.Secret, crowd), xos.TooLarge},
		{"first", join(id, token.Secret, claim("node1", 1, "10.0.0.1")), 0},
		{"another machine of the name", join(id, token.Secret, claim("node1", 2)), xos.Exists},
		{"another machine of the address", join(id, token.Secret, claim("node2", 2, "10.0.0.1")), xos.Exists},
		{"loopback is everybody's", join(id, token.Secret, claim("node2", 2, "127.0.0.1")), 0},
		{"a third", join(id, token.Secret, claim("node3", 3)), xos.Permission},
	} {
		if tt.want == 0 && tt.err != nil || tt.want != 0 && !xos.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
	late, token2, err := f.CreateJoinToken(ctx, time.Minute, 1)
	f.ok(err)
	f.pass(time.Minute + time.Second)
	if err := join(late, token2.Secret, claim("node3", 3)); !xos.Is(err, xos.Permission) {
		t.Errorf("an expired token: %v", err)
	}
	if list, err := f.ListMachines(ctx); err != nil || len(list) != 2 || list[0].Node != "node1" || list[0].Address != "10.0.0.1:1" {
		t.Errorf("machines %v, %v", list, err)
	}
}

// A machine that was removed, and whose name another one has now, cannot get
// at that one's certificates; nor can an address be taken by renewing.
func TestRenewMachine(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	join := func(c vom.MachineClaim) vom.MachineGrant {
		id, token, err := f.CreateJoinToken(ctx, 0, 1)
		f.ok(err)
		return must[vom.MachineGrant](t)(f.Join(ctx, id, token.Secret, c, ""))
	}
	old := join(claim("node1", 1, "10.0.0.1"))
	join(claim("node2", 2, "10.0.0.2"))
	renew := func(c vom.MachineClaim, shown byte) error {
		return second(f.RenewMachine(ctx, c, [32]byte{shown}, ""))
	}
	f.ok(renew(claim("node1", 1, "10.0.0.1", "10.0.0.9"), 1))
	if err := renew(claim("node1", 1, "10.0.0.2"), 1); !xos.Is(err, xos.Exists) {
		t.Errorf("with another's address: %v", err)
	}
	if err := renew(claim("node3", 1), 1); !xos.Is(err, xos.Permission) {
		t.Errorf("one that never joined: %v", err)
	}
	f.ok(f.RemoveMachine(ctx, "node1", "stolen", "by root"))
	if err := renew(claim("node1", 1), 1); !xos.Is(err, xos.Permission) {
		t.Errorf("a removed one: %v", err)
	}
	f.pass(-time.Hour)
	fresh := join(claim("node1", 9, "10.0.0.1"))
	if !fresh.Issued.After(old.Issued) {
		t.Errorf("the new machine's certificate of %v would be refused with the old one's of %v", fresh.Issued, old.Issued)
	}
	if err := renew(claim("node1", 1), 1); !xos.Is(err, xos.Permission) {
		t.Errorf("a removed one whose name was given anew: %v", err)
	}
	f.ok(renew(claim("node1", 10), 9))
	f.ok(renew(claim("node1", 10), 10))
}

func TestCore(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	id, token, err := f.CreateJoinToken(ctx, 0, 1)
	f.ok(err)
	must[vom.MachineGrant](t)(f.Join(ctx, id, token.Secret, claim("node1", 1, "172.17.0.1"), ""))
	core := claim("core", 7, "10.0.0.7", "172.17.0.1")
	if _, err := f.CertifyCore(ctx, core); !xos.Is(err, xos.Internal) {
		t.Errorf("a node as core: %v", err)
	}
	core.Service = vom.ServiceCore
	g := must[vom.MachineGrant](t)(f.CertifyCore(ctx, core))
	if d := cmp.Diff([]string{"10.0.0.7"}, texts(g.Addresses)); d != "" {
		t.Errorf("certified for %s", d)
	}
	core.Key = [32]byte{8} // it makes a new key at each start
	must[vom.MachineGrant](t)(f.CertifyCore(ctx, core))
	if err := f.RemoveMachine(ctx, "core", "", "by root"); !xos.Is(err, xos.Permission) {
		t.Errorf("removed: %v", err)
	}
}

func texts(list []netip.Addr) (out []string) {
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// What was acknowledged is there when the store is opened again, and a change
// of authorities is a new epoch, once.
func TestReopen(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	f := &fixture{t: t, time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), made: map[xos.VolumeID]xos.Account{}}
	reopen := func(trust vom.Bundle) {
		t.Helper()
		if f.db != nil {
			f.ok(f.db.Close())
		}
		db, err := pebble.Open(dir, nil)
		f.ok(err)
		f.db = db
		f.open(xvoms.Config{Trust: trust})
	}
	trust := vom.Bundle{X509Roots: []string{"a"}}
	reopen(trust)
	alice, token := f.member("alice@physics", "analyst")
	bob, bobs := f.member("bob@physics")
	f.ok(f.SetPolicy(ctx, "physics", "permit (principal, action, resource);"))
	f.ok(f.SetPassword(ctx, "alice", right))
	id := must[vom.Identity](t)(f.Login(ctx, bob, vom.Proof{Token: bobs}))
	f.ok(f.RemoveMember(ctx, bob, "left", "by root"))
	want := f.Bundle()
	for range 2 {
		reopen(trust)
		if d := cmp.Diff(want, f.Bundle()); d != "" {
			t.Error(d)
		}
	}
	if !f.revoked(id) {
		t.Error("the removal is forgotten")
	}
	for name, p := range map[string]vom.Proof{"token": {Token: token}, "password": {Password: right}} {
		if _, err := f.Login(ctx, alice, p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	reopen(trust)
	if _, err := f.Login(ctx, alice, vom.Proof{Token: token}); !xos.Is(err, xos.Permission) {
		t.Errorf("a spent token: %v", err)
	}
	for range 2 {
		reopen(vom.Bundle{X509Roots: []string{"a", "b"}})
		if got := f.Bundle().Epoch; got != want.Epoch+1 {
			t.Errorf("after a change of authorities: epoch %d after %d", got, want.Epoch)
		}
	}
	f.ok(f.db.Close())
	if _, err := xvoms.New(ctx, xvoms.Config{}, f.db, f, vops.Check); err == nil {
		t.Error("opened on a closed store")
	}
	if _, err := xvoms.New(ctx, xvoms.Config{UserTTL: 13 * time.Hour}, f.db, f, vops.Check); !xos.Is(err, xos.Invalid) {
		t.Errorf("certificates of 13 hours: %v", err)
	}
}
