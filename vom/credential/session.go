package credential

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// What a session's certificate has besides, or in place of, a login's.
const (
	sshDelegatedTo   = "delegated-to@xtreemos"
	sshDelegatedFrom = "delegated-from@xtreemos"
	// sshSourceAddress is OpenSSH's own critical option: sshd lets the bearer
	// in from these addresses only (PROTOCOL.certkeys).
	sshSourceAddress = "source-address"
)

// MaxSources bounds the addresses of a session's certificate.
const MaxSources = 32

// sessionPermits are fewer than a login's: she goes on by ssh from where she
// is, and neither her agent nor the machine's network goes with her.
var sessionPermits = [...]string{"permit-pty", "permit-user-rc"}

// FillSession writes a delegated identity into the OpenSSH certificate of a
// session on its node, whose addresses are sources.
func FillSession(c *ssh.Certificate, id vom.Identity, sources []netip.Addr) error {
	if id.Node == "" || id.Source == "" {
		return xos.Errorf(xos.Invalid, "a session's certificate belongs to a node and comes from a login")
	}
	if len(sources) == 0 || len(sources) > MaxSources {
		return xos.Errorf(xos.Invalid, "a session's certificate is good from 1 to %d addresses, not %d", MaxSources, len(sources))
	}
	own := id
	own.Node, own.Source = "", ""
	if err := check(id); err != nil {
		return err
	}
	if err := FillSSH(c, own); err != nil {
		return err
	}
	var texts []string
	for _, a := range sources {
		if !a.IsValid() || a.Zone() != "" {
			return xos.Errorf(xos.Invalid, "%v is no address of a machine", a)
		}
		a = a.Unmap()
		texts = append(texts, netip.PrefixFrom(a, a.BitLen()).String())
	}
	c.CriticalOptions = map[string]string{sshSourceAddress: strings.Join(slices.Compact(slices.Sorted(slices.Values(texts))), ",")}
	for _, p := range sshPermits {
		if !slices.Contains(sessionPermits[:], p) {
			delete(c.Extensions, p)
		}
	}
	c.Extensions[sshDelegatedTo], c.Extensions[sshDelegatedFrom] = string(id.Node), id.Source
	return nil
}

// checkSession keeps the two kinds apart: a login's certificate has no
// critical option, a session's has its node, its source and its addresses.
func checkSession(c *ssh.Certificate, id vom.Identity) error {
	if id.Node == "" {
		if len(c.CriticalOptions) > 0 {
			return xos.Errorf(xos.Invalid, "the OpenSSH certificate of %s has critical options, as no login's has", id.Account)
		}
		return nil
	}
	list, ok := c.CriticalOptions[sshSourceAddress]
	if !ok || len(c.CriticalOptions) != 1 || id.Source == "" {
		return xos.Errorf(xos.Invalid, "the OpenSSH certificate of %s is a session's without its addresses or its source", id.Account)
	}
	parts := strings.Split(list, ",")
	if len(parts) > MaxSources {
		return xos.Errorf(xos.Invalid, "the OpenSSH certificate of %s has %d addresses", id.Account, len(parts))
	}
	for _, part := range parts {
		p, err := netip.ParsePrefix(part)
		if err != nil || p.Bits() != p.Addr().BitLen() {
			return xos.Errorf(xos.Invalid, "%.80q is no single address", part)
		}
	}
	for _, p := range sshPermits {
		if _, has := c.Extensions[p]; has && !slices.Contains(sessionPermits[:], p) {
			return xos.Errorf(xos.Invalid, "a session's certificate does not carry %s", p)
		}
	}
	return nil
}
