package credential

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// The extensions' arc lies in the Internet's experimental one (RFC 1155),
// until the project has an enterprise number of its own.
var arc = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 9867, 1}

// Numbers below the arc. They are never used anew.
const (
	extUser = iota + 1
	extVO
	extGroups
	extRoles
	extHome
	extIssued
	extDelegatedTo
	extDelegatedFrom
	extService
	extEnd
)

// UserExtensions gives the extensions of a user's certificate: Account,
// Groups, Roles, Home, Issued, and where it is delegated Node and Source.
func UserExtensions(id vom.Identity) ([]pkix.Extension, error) {
	if err := check(id); err != nil {
		return nil, err
	}
	return encode([extEnd]string{
		extUser: string(id.User), extVO: string(id.VO),
		extGroups: join(id.Groups), extRoles: join(id.Roles), extHome: string(id.Home),
		extIssued:      formatIssued(id.Issued),
		extDelegatedTo: string(id.Node), extDelegatedFrom: id.Source,
	})
}

// MachineExtensions gives the extensions of a machine's certificate. Its name
// is not among them: it is the subject's common name and the first DNS name.
func MachineExtensions(s vom.Service, issued time.Time) ([]pkix.Extension, error) {
	if !validService(s) {
		return nil, xos.Errorf(xos.Invalid, "%.80q is no machine's service", s)
	}
	return encode([extEnd]string{extService: string(s), extIssued: formatIssued(issued)})
}

func validService(s vom.Service) bool {
	return s == vom.ServiceCore || s == vom.ServiceNode || s == vom.ServiceStorage
}

// encode leaves out what is empty.
func encode(values [extEnd]string) ([]pkix.Extension, error) {
	var exts []pkix.Extension
	for n, v := range values {
		if v == "" {
			continue
		}
		der, err := asn1.MarshalWithParams(v, "utf8")
		if err != nil || len(der) > maxValue {
			return nil, xos.Errorf(xos.TooLarge, "attributes are larger than a certificate holds")
		}
		exts = append(exts, pkix.Extension{Id: append(arc[:len(arc):len(arc)], n), Value: der})
	}
	return exts, nil
}

// decode refuses duplicates and values that are no UTF8String; numbers it does
// not know it ignores, as it does foreign extensions.
func decode(exts []pkix.Extension) (values [extEnd]string, err error) {
	for _, e := range exts {
		if len(e.Id) != len(arc)+1 || !e.Id[:len(arc)].Equal(arc) {
			continue
		}
		n := e.Id[len(arc)]
		if n <= 0 || n >= extEnd {
			continue
		}
		var raw asn1.RawValue
		rest, err := asn1.Unmarshal(e.Value, &raw)
		if err != nil || len(rest) > 0 || len(e.Value) > maxValue || raw.Class != asn1.ClassUniversal ||
			raw.Tag != asn1.TagUTF8String || raw.IsCompound || len(raw.Bytes) == 0 || !utf8.Valid(raw.Bytes) {
			return values, xos.Errorf(xos.Invalid, "extension %v is malformed", e.Id)
		}
		if values[n] != "" {
			return values, xos.Errorf(xos.Invalid, "extension %v is there twice", e.Id)
		}
		values[n] = string(raw.Bytes)
	}
	return values, nil
}

// FromX509 reads the identity in a user's certificate; xos.Invalid if it is
// none. It verifies nothing.
func FromX509(c *x509.Certificate) (vom.Identity, error) {
	v, err := decode(c.Extensions)
	if err != nil {
		return vom.Identity{}, err
	}
	if v[extUser] == "" || v[extService] != "" {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "the certificate of %.80q is no user's", c.Subject.CommonName)
	}
	issued, err := parseIssued(v[extIssued])
	if err != nil {
		return vom.Identity{}, err
	}
	id := vom.Identity{
		Attributes: xos.Attributes{
			Account: xos.Account{User: xos.UserID(v[extUser]), VO: xos.VOName(v[extVO])},
			Groups:  split[xos.GroupName](v[extGroups]),
			Roles:   split[xos.RoleName](v[extRoles]),
			Home:    xos.VolumeID(v[extHome]),
		},
		Serial:    serial(c),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Issued: issued,
		Node: xos.NodeID(v[extDelegatedTo]), Source: v[extDelegatedFrom], Key: Fingerprint(c.PublicKey),
	}
	if err := check(id); err != nil {
		return vom.Identity{}, err
	}
	if err := checkIssued(issued, c.NotBefore); err != nil {
		return vom.Identity{}, err
	}
	return id, nil
}

// MachineFromX509 reads the machine in its certificate; xos.Invalid if it is
// none. It verifies nothing.
func MachineFromX509(c *x509.Certificate) (vom.Machine, error) {
	m, _, err := machine(c)
	return m, err
}

func machine(c *x509.Certificate) (m vom.Machine, issued time.Time, err error) {
	v, err := decode(c.Extensions)
	if err != nil {
		return m, issued, err
	}
	s := vom.Service(v[extService])
	if !validService(s) || v[extUser] != "" {
		return m, issued, xos.Errorf(xos.Invalid, "the certificate of %.80q is no machine's", c.Subject.CommonName)
	}
	if issued, err = parseIssued(v[extIssued]); err != nil {
		return m, issued, err
	}
	if err = checkIssued(issued, c.NotBefore); err != nil {
		return m, issued, err
	}
	name := c.Subject.CommonName
	if !xos.ValidName(name) || len(c.DNSNames) == 0 || !strings.EqualFold(c.DNSNames[0], name) {
		return m, issued, xos.Errorf(xos.Invalid, "%.80q is no machine name", name)
	}
	return vom.Machine{Node: xos.NodeID(name), Service: s, Serial: serial(c), Key: Fingerprint(c.PublicKey)}, issued, nil
}

// Fingerprint gives a public key's as OpenSSH prints it, "SHA256:…"; "" for a
// key of a kind that OpenSSH does not know.
func Fingerprint(public any) string {
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

func serial(c *x509.Certificate) string {
	if c.SerialNumber == nil {
		return ""
	}
	return c.SerialNumber.String()
}
