package wallet_test

import (
	"crypto/ed25519"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/wallet"
)

// serveAgent serves a keyring at a socket.
func serveAgent(t *testing.T, ring agent.Agent) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { agent.ServeAgent(ring, c); c.Close() }()
		}
	}()
	return path
}

// Of what an agent has, her own longest certificate signs.
func TestForwarded(t *testing.T) {
	ca, ring := credtest.New(t), agent.NewKeyring()
	alice := xos.Account{User: "alice", VO: "physics"}
	now := time.Now()
	add := func(c *ssh.Certificate, key ed25519.PrivateKey) *ssh.Certificate {
		t.Helper()
		if err := ring.Add(agent.AddedKey{PrivateKey: key, Certificate: c}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	socket := serveAgent(t, ring)
	if _, err := wallet.Forwarded(socket, alice, now); !xos.Is(err, xos.NotFound) {
		t.Errorf("an empty one: %v", err)
	}
	_, plain, _ := ed25519.GenerateKey(nil)
	if err := ring.Add(agent.AddedKey{PrivateKey: plain}); err != nil {
		t.Fatal(err)
	}
	add(ca.SSHUser("bob@physics", credtest.Issued(now, 9*time.Hour)))
	add(ca.SSHUser("alice@chemistry", credtest.Issued(now, 9*time.Hour)))
	add(ca.SSHUser("alice@physics", credtest.Issued(now.Add(-time.Hour), time.Minute)))
	add(ca.SSHSession("alice@physics", "node1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, credtest.Source("7"), credtest.Issued(now, 9*time.Hour)))
	if c, err := wallet.Forwarded(socket, alice, now); !xos.Is(err, xos.NotFound) {
		t.Errorf("none of hers: %v %v", c, err)
	}
	add(ca.SSHUser("alice@physics", credtest.Issued(now, time.Hour)))
	best := add(ca.SSHUser("alice@physics", credtest.Issued(now, 3*time.Hour)))
	add(ca.SSHUser("alice@physics", credtest.Issued(now, 2*time.Hour)))
	c, err := wallet.Forwarded(socket, alice, now)
	if err != nil || c.Serial != best.Serial {
		t.Fatalf("%v %v", c, err)
	}
	who, err := credential.FromSSH(c)
	if err != nil {
		t.Fatal(err)
	}
	content, err := consent.Terms(who, "node1", plain.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := wallet.SignConsent(socket, c, content)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consent.Verify(content, sig, c, who, "node1", plain.Public().(ed25519.PublicKey), now); err != nil {
		t.Error(err)
	}
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := wallet.SignConsent(socket, c, content); !xos.Is(err, xos.Permission) {
		t.Errorf("an agent that has it no more: %v", err)
	}
}
