package credential_test

import (
	"crypto/x509"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// safe fails for an identity that no login may ever see.
func safe(t *testing.T, id vom.Identity) {
	t.Helper()
	for _, n := range []string{string(id.User), string(id.VO)} {
		if !xos.ValidName(n) || xos.ReservedName(n) {
			t.Fatalf("a bad name came through: %q", n)
		}
	}
	for _, g := range id.GroupNames() {
		if len(g) > 2*xos.MaxName+1 {
			t.Fatalf("a bad group came through: %q", g)
		}
	}
	if _, err := credential.UserExtensions(id); err != nil {
		t.Fatalf("decoded what is not encoded: %v", err)
	}
}

func FuzzSSH(f *testing.F) {
	a := credtest.New(f)
	c, _ := a.SSHUser("alice@physics", credtest.Groups("higgs"))
	f.Add(c.Marshal())
	f.Add(ssh.MarshalAuthorizedKey(c))
	f.Add(ssh.MarshalAuthorizedKey(c.Key))
	f.Add([]byte("ssh-ed25519-cert-v01@openssh.com AAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := credential.ParseSSH(b)
		if err != nil {
			return
		}
		if id, err := credential.FromSSH(c); err == nil {
			safe(t, id)
		}
		a.Verifier().SSH(c, "alice@physics")
	})
}

func FuzzX509(f *testing.F) {
	a := credtest.New(f)
	f.Add(a.X509User("alice@physics", credtest.Roles("analyst")).Certificate[0])
	f.Add(a.Delegated("alice@physics", "node1").Certificate[0])
	f.Add(a.Machine("node1", vom.ServiceNode).Certificate[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return
		}
		if id, err := credential.FromX509(c); err == nil {
			safe(t, id)
		}
		if m, err := credential.MachineFromX509(c); err == nil && !xos.ValidName(string(m.Node)) {
			t.Fatalf("a bad machine name came through: %q", m.Node)
		}
		a.Verifier().X509([]*x509.Certificate{c})
		a.Verifier().Machine([]*x509.Certificate{c})
	})
}
