package credential

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Names of the OpenSSH extensions, in OpenSSH's own form name@domain
// (PROTOCOL.certkeys).
const (
	sshUser   = "user-id@xtreemos"
	sshVO     = "vo@xtreemos"
	sshGroups = "groups@xtreemos"
	sshRoles  = "roles@xtreemos"
	sshHome   = "home@xtreemos"
	sshIssued = "issued@xtreemos"
)

// sshPermits is what sshd lets the bearer of a user's own certificate do. X11
// is not among it.
var sshPermits = [...]string{"permit-pty", "permit-agent-forwarding", "permit-port-forwarding", "permit-user-rc"}

// FillSSH writes an identity into an OpenSSH certificate that is to be signed:
// type, key id, principal and extensions. Key, serial and validity are the
// caller's.
func FillSSH(c *ssh.Certificate, id vom.Identity) error {
	if err := check(id); err != nil {
		return err
	}
	if id.Node != "" {
		return xos.Errorf(xos.NotSupported, "a delegated credential is no login's certificate: see FillSession")
	}
	c.CertType = ssh.UserCert
	c.KeyId = id.Account.String()
	c.ValidPrincipals = []string{id.Account.String()}
	c.CriticalOptions = nil
	c.Extensions = map[string]string{
		sshUser: string(id.User), sshVO: string(id.VO), sshIssued: formatIssued(id.Issued),
	}
	for _, p := range sshPermits {
		c.Extensions[p] = ""
	}
	for name, v := range map[string]string{
		sshGroups: join(id.Groups), sshRoles: join(id.Roles), sshHome: string(id.Home),
	} {
		if len(v) > maxValue {
			return xos.Errorf(xos.TooLarge, "attributes are larger than a certificate holds")
		}
		if v != "" {
			c.Extensions[name] = v
		}
	}
	return nil
}

// FromSSH reads the identity in a user's OpenSSH certificate; xos.Invalid if
// it is none. It verifies nothing.
func FromSSH(c *ssh.Certificate) (vom.Identity, error) {
	if c == nil || c.Key == nil || c.SignatureKey == nil || c.CertType != ssh.UserCert || c.Extensions[sshUser] == "" {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "the OpenSSH certificate is no grid user's")
	}
	for name, v := range c.Extensions {
		if len(v) > maxValue {
			return vom.Identity{}, xos.Errorf(xos.Invalid, "extension %.80q is too long", name)
		}
	}
	issued, err := parseIssued(c.Extensions[sshIssued])
	if err != nil {
		return vom.Identity{}, err
	}
	id := vom.Identity{
		Attributes: xos.Attributes{
			Account: xos.Account{User: xos.UserID(c.Extensions[sshUser]), VO: xos.VOName(c.Extensions[sshVO])},
			Groups:  split[xos.GroupName](c.Extensions[sshGroups]),
			Roles:   split[xos.RoleName](c.Extensions[sshRoles]),
			Home:    xos.VolumeID(c.Extensions[sshHome]),
		},
		Serial: strconv.FormatUint(c.Serial, 10),
		Issued: issued,
		Node:   xos.NodeID(c.Extensions[sshDelegatedTo]), Source: c.Extensions[sshDelegatedFrom],
		Key: ssh.FingerprintSHA256(c.Key),
	}
	if err := checkSession(c, id); err != nil {
		return vom.Identity{}, err
	}
	// A certificate "for ever" or beyond time.Time's seconds is none of ours.
	if c.ValidAfter >= c.ValidBefore || c.ValidBefore > math.MaxUint32 {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "the validity of the OpenSSH certificate is malformed")
	}
	id.NotBefore = time.Unix(int64(c.ValidAfter), 0)
	id.NotAfter = time.Unix(int64(c.ValidBefore), 0)
	if err := check(id); err != nil {
		return vom.Identity{}, err
	}
	if err := checkIssued(issued, id.NotBefore); err != nil {
		return vom.Identity{}, err
	}
	if len(c.ValidPrincipals) != 1 || c.ValidPrincipals[0] != id.Account.String() {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "the OpenSSH certificate's principals are not %q", id.Account)
	}
	return id, nil
}

// ParseSSH reads an OpenSSH certificate in wire format or as a line
// "TYPE BASE64 [COMMENT]", as sshd gives it. xos.Invalid if it is a plain key.
func ParseSSH(b []byte) (*ssh.Certificate, error) {
	if len(b) > maxSSH {
		return nil, xos.Errorf(xos.Invalid, "an OpenSSH certificate of %d bytes is too long", len(b))
	}
	key, err := ssh.ParsePublicKey(b)
	if err != nil {
		line := bytes.TrimSpace(b)
		if bytes.ContainsAny(line, "\n\r\x00") {
			return nil, xos.Errorf(xos.Invalid, "this is no OpenSSH certificate")
		}
		var options []string
		if key, _, options, _, err = ssh.ParseAuthorizedKey(line); err != nil || len(options) > 0 {
			return nil, xos.Errorf(xos.Invalid, "this is no OpenSSH certificate")
		}
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, xos.Errorf(xos.Invalid, "this is an OpenSSH key without a certificate")
	}
	return c, nil
}
