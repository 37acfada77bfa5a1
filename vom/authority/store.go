package authority

import (
	"context"
	"crypto/x509"
	"strconv"

	"github.com/smallstep/certificates/db"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// store is smallstep's database on our records. Certificates are kept by
// serial. Revocation, tokens and hosts are XVOMS's records and are not asked
// here: what smallstep would do with them is refused, not ignored.
type store struct{ db kv.Store }

var _ interface {
	db.AuthDB
	db.CertificateStorer
} = (*store)(nil)

// keyRoot is the record of the root's fingerprint.
const keyRoot = "ca/root"

// root gives the fingerprint of the root that the records know; "" for none.
func (s *store) root() (fingerprint string, err error) {
	err = s.db.View(context.Background(), func(t kv.Txn) error {
		v, _, err := t.Get([]byte(keyRoot))
		fingerprint = string(v)
		return err
	})
	return fingerprint, err
}

// keepRoot writes the fingerprint, unless another core was first.
func (s *store) keepRoot(fingerprint string) error {
	return s.db.Update(context.Background(), func(t kv.Txn) error {
		v, ok, err := t.Get([]byte(keyRoot))
		switch {
		case err != nil:
			return err
		case !ok:
			return t.Put([]byte(keyRoot), []byte(fingerprint))
		case string(v) != fingerprint:
			return xos.Errorf(xos.Conflict, "another core has made this grid's keys").WithHint("copy its directory of keys here")
		}
		return nil
	})
}

func (s *store) put(key string, value []byte) error {
	return s.db.Update(context.Background(), func(t kv.Txn) error { return t.Put([]byte(key), value) })
}

// StoreCertificate keeps an issued certificate, for the record.
func (s *store) StoreCertificate(c *x509.Certificate) error {
	return s.put("ca/x509/"+c.SerialNumber.String(), c.Raw)
}

// StoreSSHCertificate keeps an issued OpenSSH certificate.
func (s *store) StoreSSHCertificate(c *ssh.Certificate) error {
	return s.put("ca/ssh/"+strconv.FormatUint(c.Serial, 10), c.Marshal())
}

// GetCertificate gives a certificate that was kept.
func (s *store) GetCertificate(serial string) (*x509.Certificate, error) {
	var der []byte
	err := s.db.View(context.Background(), func(t kv.Txn) error {
		v, ok, err := t.Get([]byte("ca/x509/" + serial))
		if err == nil && !ok {
			err = xos.Errorf(xos.NotFound, "no certificate with serial %.80q was issued", serial)
		}
		der = v
		return err
	})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func elsewhere(what string) error {
	return xos.Errorf(xos.NotSupported, "%s belongs to the VO records, not to the signing authority", what)
}

func (s *store) IsRevoked(string) (bool, error)             { return false, elsewhere("revocation") }
func (s *store) IsSSHRevoked(string) (bool, error)          { return false, elsewhere("revocation") }
func (s *store) Revoke(*db.RevokedCertificateInfo) error    { return elsewhere("revocation") }
func (s *store) RevokeSSH(*db.RevokedCertificateInfo) error { return elsewhere("revocation") }
func (s *store) UseToken(string, string) (bool, error)      { return false, elsewhere("enrolment") }
func (s *store) IsSSHHost(string) (bool, error)             { return false, elsewhere("the list of hosts") }
func (s *store) GetSSHHostPrincipals() ([]string, error)    { return nil, elsewhere("the list of hosts") }
func (s *store) Shutdown() error                            { return nil }
