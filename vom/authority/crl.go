package authority

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"time"

	"github.com/xtreemos/xos"
)

// Issuer gives the DER of the certificate that signs users' and machines'
// certificates, and their revocation lists.
func (a *Authority) Issuer() []byte { return a.keys.issuer.Raw }

// CRL signs a certificate revocation list (RFC 5280) and gives its DER. The
// number must grow from list to list.
func (a *Authority) CRL(revoked []x509.RevocationListEntry, number *big.Int, now, next time.Time) ([]byte, error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: number, ThisUpdate: now, NextUpdate: next, RevokedCertificateEntries: revoked,
	}, a.keys.issuer, a.keys.issuerKey)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "signing the revocation list: %w", err)
	}
	return der, nil
}
