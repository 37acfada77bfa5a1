// Package order signs and verifies job orders: with one, a user's delegated
// credential on the machine that submits a job lets another machine act for
// her, for that job only.
package order

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// domain stands before the content in what is signed, so that the signature is
// never taken for one of anything else, nor anything else's for an order's: a
// delegated key signs TLS handshakes too.
const domain = "XtreemOS job order 1\x00"

// maxContent bounds an order's bytes.
const maxContent = 16 << 10

// Signed is an order as it travels.
type Signed struct {
	Content, Signature []byte
	Chain              [][]byte // the signer's certificate, DER, leaf first
}

// SpecHash is what stands in an order for the job's specification.
func SpecHash(spec []byte) []byte {
	sum := sha256.Sum256(spec)
	return sum[:]
}

// Sign signs an order with a user's delegated credential.
func Sign(o *xosv1.OrderContent, with tls.Certificate) (Signed, error) {
	content, err := proto.Marshal(o)
	if err != nil {
		return Signed{}, xos.Errorf(xos.Internal, "encoding an order: %w", err)
	}
	key, ok := with.PrivateKey.(crypto.Signer)
	if !ok {
		return Signed{}, xos.Errorf(xos.Internal, "the credential has no key that signs")
	}
	signature, err := key.Sign(rand.Reader, append([]byte(domain), content...), crypto.Hash(0))
	if err != nil {
		return Signed{}, xos.Errorf(xos.Internal, "signing an order: %w", err)
	}
	return Signed{content, signature, with.Certificate}, nil
}

// Verify checks an order and gives it with the identity it was signed by: a
// delegated credential, held by the machine that it names as the submitter,
// of the account it names.
func Verify(v *credential.Verifier, content, signature []byte, chain [][]byte, now time.Time) (*xosv1.OrderContent, vom.Identity, error) {
	if len(content) == 0 || len(content) > maxContent || len(chain) > 4 {
		return nil, vom.Identity{}, xos.Errorf(xos.Invalid, "there is no order of a proper size")
	}
	var certs []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, vom.Identity{}, xos.Errorf(xos.Invalid, "reading the order's certificates: %w", err)
		}
		certs = append(certs, c)
	}
	id, err := v.X509(certs)
	if err != nil {
		return nil, vom.Identity{}, err
	}
	pub, ok := certs[0].PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(pub, append([]byte(domain), content...), signature) {
		return nil, vom.Identity{}, xos.Errorf(xos.Permission, "the order of %s is not signed by her credential", id.Account)
	}
	var o xosv1.OrderContent
	if err := proto.Unmarshal(content, &o); err != nil {
		return nil, vom.Identity{}, xos.Errorf(xos.Invalid, "reading the order: %w", err)
	}
	switch {
	case id.Node == "" || xos.NodeID(o.SubmitNode) != id.Node:
		err = xos.Errorf(xos.Permission, "the order is signed with a credential of machine %q, not of %.80q", id.Node, o.SubmitNode)
	case o.Account.GetUser() != string(id.User) || o.Account.GetVo() != string(id.VO):
		err = xos.Errorf(xos.Permission, "the order is not for the account that signed it")
	case o.NotAfter == nil || !now.Before(o.NotAfter.AsTime()):
		err = xos.Errorf(xos.Expired, "the order for job %.80q has expired", o.Job)
	}
	if err != nil {
		return nil, vom.Identity{}, err
	}
	return &o, id, nil
}

// Matches reports whether spec is the specification the order was signed for.
func Matches(o *xosv1.OrderContent, spec []byte) bool {
	return bytes.Equal(o.SpecSha256, SpecHash(spec))
}
