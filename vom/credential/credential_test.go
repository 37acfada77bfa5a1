package credential_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

var alice = xos.Account{User: "alice", VO: "physics"}

func TestBothFormsCarryTheSame(t *testing.T) {
	a := credtest.New(t)
	opts := []credtest.Option{credtest.Groups("higgs", "atlas"), credtest.Roles("analyst"),
		credtest.Issued(time.Now().Add(-3*time.Second), time.Hour)}
	c, _ := a.SSHUser("alice@physics", opts...)
	parsed, err := credential.ParseSSH(ssh.MarshalAuthorizedKey(c))
	if err != nil {
		t.Fatal(err)
	}
	fromSSH, err := a.Verifier().SSH(parsed, "alice@physics")
	if err != nil {
		t.Fatal(err)
	}
	fromX509, err := a.Verifier().X509(credtest.Chain(t, a.X509User("alice@physics", opts...)))
	if err != nil {
		t.Fatal(err)
	}
	want := xos.Attributes{Account: alice, Groups: []xos.GroupName{"atlas", "higgs"},
		Roles: []xos.RoleName{"analyst"}, Home: "home-physics-alice"}
	if d := cmp.Diff(want, fromSSH.Attributes); d != "" {
		t.Error("ssh:", d)
	}
	if d := cmp.Diff(want, fromX509.Attributes); d != "" {
		t.Error("x509:", d)
	}
	if fromSSH.Issued.IsZero() || fromX509.Serial == "" || !fromX509.NotAfter.Equal(fromSSH.NotAfter) {
		t.Errorf("ssh %+v, x509 %+v", fromSSH, fromX509)
	}
}

func TestDelegatedAndMachine(t *testing.T) {
	a := credtest.New(t)
	id, err := a.Verifier().X509(credtest.Chain(t, a.Delegated("alice@physics", "node1", credtest.Source("77"))))
	if err != nil || id.Node != "node1" || id.Source != "77" {
		t.Errorf("delegated: %+v, %v", id, err)
	}
	chain := credtest.Chain(t, a.Machine("node1", vom.ServiceNode))
	m, err := a.Verifier().Machine(chain)
	if err != nil || m.Node != "node1" || m.Service != vom.ServiceNode || m.Serial == "" {
		t.Errorf("machine: %+v, %v", m, err)
	}
	if _, err := a.Verifier().X509(chain); !xos.Is(err, xos.Invalid) {
		t.Errorf("a machine passed as a user: %v", err)
	}
	if _, err := a.Verifier().Machine(credtest.Chain(t, a.X509User("alice@physics"))); !xos.Is(err, xos.Invalid) {
		t.Errorf("a user passed as a machine: %v", err)
	}
}

func TestSSHRefusals(t *testing.T) {
	a, foreign := credtest.New(t), credtest.New(t)
	now := time.Now()
	good, _ := a.SSHUser("alice@physics")
	forged, _ := foreign.SSHUser("alice@physics")
	old, _ := a.SSHUser("alice@physics", credtest.Issued(now.Add(-time.Hour), time.Minute))
	early, _ := a.SSHUser("alice@physics", credtest.Issued(now.Add(time.Hour), time.Hour))
	change := func(f func(*ssh.Certificate)) *ssh.Certificate {
		c, err := credential.ParseSSH(good.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		f(c)
		return c
	}
	for _, tt := range []struct {
		name, principal string
		c               *ssh.Certificate
		want            xos.Kind
	}{
		{"another's name", "bob@physics", good, xos.Permission},
		{"another VO", "alice@chemistry", good, xos.Permission},
		{"no name", "", good, xos.Permission},
		{"root", "root", good, xos.Permission},
		{"foreign authority", "alice@physics", forged, xos.Permission},
		{"expired", "alice@physics", old, xos.Expired},
		{"not yet valid", "alice@physics", early, xos.Permission},
		{"tampered group", "alice@physics", change(func(c *ssh.Certificate) { c.Extensions["groups@xtreemos"] = "admins" }), xos.Permission},
		{"tampered time", "alice@physics", change(func(c *ssh.Certificate) { c.ValidBefore += 3600 }), xos.Permission},
		{"foreign signer claimed", "alice@physics", change(func(c *ssh.Certificate) { c.SignatureKey = forged.SignatureKey }), xos.Permission},
		{"critical option", "alice@physics", change(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }), xos.Invalid},
		{"second principal", "alice@physics", change(func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root") }), xos.Invalid},
		{"no principal", "alice@physics", change(func(c *ssh.Certificate) { c.ValidPrincipals = nil }), xos.Invalid},
		{"host certificate", "alice@physics", change(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), xos.Invalid},
		{"for ever", "alice@physics", change(func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }), xos.Invalid},
		{"user root", "root@physics", change(func(c *ssh.Certificate) { c.Extensions["user-id@xtreemos"] = "root" }), xos.Invalid},
		{"newline in name", "alice@physics", change(func(c *ssh.Certificate) { c.Extensions["user-id@xtreemos"] = "ali\nce" }), xos.Invalid},
		{"unsorted groups", "alice@physics", change(func(c *ssh.Certificate) { c.Extensions["groups@xtreemos"] = "b,a" }), xos.Invalid},
		{"no time of issue", "alice@physics", change(func(c *ssh.Certificate) { delete(c.Extensions, "issued@xtreemos") }), xos.Invalid},
	} {
		if _, err := a.Verifier().SSH(tt.c, tt.principal); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := a.Verifier().SSH(good, "alice@physics"); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestX509Refusals(t *testing.T) {
	a, foreign := credtest.New(t), credtest.New(t)
	now := time.Now()
	good := credtest.Chain(t, a.X509User("alice@physics"))
	for _, tt := range []struct {
		name  string
		chain []*x509.Certificate
		want  xos.Kind
	}{
		{"none", nil, xos.Permission},
		{"foreign authority", credtest.Chain(t, foreign.X509User("alice@physics")), xos.Permission},
		{"intermediate missing", good[:1], xos.Permission},
		{"the authority itself", good[1:], xos.Permission},
		{"too long", []*x509.Certificate{good[0], good[1], good[1], good[1], good[1]}, xos.Invalid},
		{"expired", credtest.Chain(t, a.X509User("alice@physics", credtest.Issued(now.Add(-time.Hour), time.Minute))), xos.Expired},
		{"expired and foreign", credtest.Chain(t, foreign.X509User("alice@physics", credtest.Issued(now.Add(-time.Hour), time.Minute))), xos.Permission},
		{"not yet valid", credtest.Chain(t, a.X509User("alice@physics", credtest.Issued(now.Add(time.Hour), time.Hour))), xos.Permission},
	} {
		if _, err := a.Verifier().X509(tt.chain); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestRevocations(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 500e6, time.UTC)
	id := func(issued time.Time, edit func(*vom.Identity)) vom.Identity {
		v := vom.Identity{Attributes: xos.Attributes{Account: alice}, Serial: "7", Issued: issued}
		if edit != nil {
			edit(&v)
		}
		return v
	}
	member := vom.Revocation{User: "alice", VO: "physics", Before: at}
	for _, tt := range []struct {
		name string
		r    vom.Revocation
		id   vom.Identity
		want bool
	}{
		{"issued before, same second", member, id(at.Add(-time.Millisecond), nil), true},
		{"issued at", member, id(at, nil), true},
		{"issued after, same second", member, id(at.Add(1), nil), false},
		{"another VO", vom.Revocation{User: "alice", VO: "chemistry", Before: at}, id(at, nil), false},
		{"whole VO", vom.Revocation{VO: "physics", Before: at}, id(at, nil), true},
		{"user everywhere", vom.Revocation{User: "alice", Before: at}, id(at, nil), true},
		{"serial", vom.Revocation{Serial: "7", Before: at}, id(at, nil), true},
		{"other serial", vom.Revocation{Serial: "8", Before: at}, id(at, nil), false},
		{"source of a delegation", vom.Revocation{Serial: "7", Before: at}, id(at, func(v *vom.Identity) { v.Serial, v.Source, v.Node = "9", "7", "node1" }), true},
		{"node of a delegation", vom.Revocation{Node: "node1", Before: at}, id(at, func(v *vom.Identity) { v.Node = "node1" }), true},
		{"node, not delegated", vom.Revocation{Node: "node1", Before: at}, id(at, nil), false},
		{"all", vom.Revocation{Before: at}, id(at, nil), true},
	} {
		if _, got := credential.Revoked([]vom.Revocation{tt.r}, tt.id); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestVerifierFollowsBundle(t *testing.T) {
	a := credtest.New(t)
	v := a.Verifier()
	c, _ := a.SSHUser("alice@physics")
	bob := credtest.Chain(t, a.X509User("bob@physics"))
	node := credtest.Chain(t, a.Machine("node1", vom.ServiceNode))
	a.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Reason: "removed from physics by root"})
	if _, err := v.SSH(c, "alice@physics"); !xos.Is(err, xos.Permission) {
		t.Errorf("revoked: %v", err)
	}
	again, _ := a.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	if _, err := v.SSH(again, "alice@physics"); err != nil {
		t.Errorf("added again: %v", err)
	}
	a.Revoke(vom.Revocation{Node: "node1", Before: time.Now()})
	if _, err := v.Machine(node); !xos.Is(err, xos.Permission) {
		t.Errorf("removed machine: %v", err)
	}
	if _, err := v.X509(bob); err != nil {
		t.Errorf("bob: %v", err)
	}
	a.Change(func(b *vom.Bundle) { b.Issued = time.Now().Add(-48 * time.Hour) })
	if _, err := v.X509(bob); !xos.Is(err, xos.Unavailable) {
		t.Errorf("too long without news: %v", err)
	}
	if _, err := v.Machine(credtest.Chain(t, a.Machine("node2", vom.ServiceNode))); err != nil {
		t.Errorf("a machine without news: %v", err)
	}
	a.Change(func(b *vom.Bundle) { b.X509Roots, b.SSHUserCAs = nil, nil })
	if _, err := v.X509(bob); !xos.Is(err, xos.Unavailable) {
		t.Errorf("no trust: %v", err)
	}
}
