package credential_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// A session's certificate says all that is narrower of it, and is told from a
// login's; the authority's signature alone makes neither of the other.
func TestSessionCertificate(t *testing.T) {
	a := credtest.New(t)
	from := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.7")}
	good, _ := a.SSHSession("alice@physics", "node1", from, credtest.Source("77"), credtest.Groups("higgs"))
	id, err := a.Verifier().SSH(good, "alice@physics")
	if err != nil || id.Node != "node1" || id.Source != "77" || !slices.Equal(id.Groups, []xos.GroupName{"higgs"}) {
		t.Fatalf("%+v, %v", id, err)
	}
	if got := good.CriticalOptions["source-address"]; got != "192.0.2.7/32,2001:db8::1/128" {
		t.Errorf("good from %q", got)
	}
	for _, p := range []string{"permit-agent-forwarding", "permit-port-forwarding", "permit-X11-forwarding"} {
		if _, has := good.Extensions[p]; has {
			t.Errorf("it has %s", p)
		}
	}
	for _, r := range []vom.Revocation{{Serial: "77", Before: id.Issued}, {Node: "node1", Before: id.Issued}, {User: "alice", VO: "physics", Before: id.Issued}} {
		if _, revoked := credential.Revoked([]vom.Revocation{r}, id); !revoked {
			t.Errorf("%+v leaves it", r)
		}
	}
	for name, edit := range map[string]func(*ssh.Certificate){
		"no addresses":        func(c *ssh.Certificate) { c.CriticalOptions = nil },
		"any address":         func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "0.0.0.0/0" },
		"no network":          func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "somewhere" },
		"many addresses":      func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = strings.Repeat("192.0.2.7/32,", 40) },
		"another option":      func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "true" },
		"no source":           func(c *ssh.Certificate) { delete(c.Extensions, "delegated-from@xtreemos") },
		"no node":             func(c *ssh.Certificate) { delete(c.Extensions, "delegated-to@xtreemos") },
		"an odd node":         func(c *ssh.Certificate) { c.Extensions["delegated-to@xtreemos"] = "No/de" },
		"forwarding":          func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" },
		"a login's with node": func(c *ssh.Certificate) { c.Extensions["permit-agent-forwarding"] = "" },
	} {
		c, err := credential.ParseSSH(good.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		edit(c)
		if _, err := credential.FromSSH(c); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]func() error{
		"of no node":    func() error { return credential.FillSession(&ssh.Certificate{}, vom.Identity{}, from) },
		"of no address": func() error { return credential.FillSession(&ssh.Certificate{}, id, nil) },
		"of a zone": func() error {
			return credential.FillSession(&ssh.Certificate{}, id, []netip.Addr{netip.MustParseAddr("fe80::1%eth0")})
		},
		"as a login's":    func() error { return credential.FillSSH(&ssh.Certificate{}, id) },
		"of 33 addresses": func() error { return credential.FillSession(&ssh.Certificate{}, id, make([]netip.Addr, 33)) },
	} {
		if f() == nil {
			t.Errorf("one %s was filled", name)
		}
	}
}
