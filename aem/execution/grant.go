package execution

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/order"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Delegator is the part of xosv1connect.CredentialsClient that is used here.
type Delegator interface {
	Delegate(context.Context, *connect.Request[xosv1.DelegateRequest]) (*connect.Response[xosv1.DelegateResponse], error)
}

// grantFile, in a unit's directory, holds the credential that the unit was
// admitted with: after a restart the user is admitted again.
const grantFile = "grant.json"

// grant gets a credential with which this machine may act for the user, her
// home's mount above all: what her session here has, or one for her order.
func (e *Execution) grant(ctx context.Context, who vom.Identity, signed order.Signed) (session.Credential, error) {
	if who.Node == e.cfg.Node {
		if c, err := e.Sessions.Credential(ctx, who.Account); err == nil {
			return c, nil
		}
	}
	c, err := e.delegate(ctx, who, signed)
	if xos.Is(err, xos.Unavailable) {
		// The core is away. A credential that is here already does as well.
		if held, herr := e.Sessions.Credential(ctx, who.Account); herr == nil {
			return held, nil
		}
	}
	return c, err
}

func (e *Execution) delegate(ctx context.Context, who vom.Identity, signed order.Signed) (session.Credential, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return session.Credential{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: who.Account.String()}}, key)
	if err != nil {
		return session.Credential{}, err
	}
	resp, err := e.Credentials.Delegate(ctx, connect.NewRequest(&xosv1.DelegateRequest{
		Csr: csr, Order: signed.Content, OrderSignature: signed.Signature, OrderChain: signed.Chain}))
	if err != nil {
		return session.Credential{}, err
	}
	c := tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key}
	chain, err := parse(c.Certificate)
	if err != nil {
		return session.Credential{}, err
	}
	id, err := e.Verifier.X509(chain)
	if err != nil {
		return session.Credential{}, err
	}
	if id.Account != who.Account || id.Node != e.cfg.Node {
		return session.Credential{}, xos.Errorf(xos.Internal, "the core delegated %s to %q; wanted %s to %s", id.Account, id.Node, who.Account, e.cfg.Node)
	}
	c.Leaf = chain[0]
	out := session.Credential{Certificate: c, Identity: id}
	if resp.Msg.Until.IsValid() {
		out.Until = resp.Msg.Until.AsTime()
	}
	return out, nil
}

func parse(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > 4 {
		return nil, xos.Errorf(xos.Invalid, "a chain of %d certificates", len(ders))
	}
	var chain []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, xos.Errorf(xos.Invalid, "a certificate is malformed: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

type savedGrant struct {
	Chain [][]byte
	Key   []byte // PKCS #8
}

func saveGrant(dir string, c session.Credential) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.Certificate.PrivateKey)
	if err != nil {
		return err
	}
	return unit.Write(filepath.Join(dir, grantFile), savedGrant{c.Certificate.Certificate, key})
}

// loadGrant reads what was verified when it was saved.
func loadGrant(dir string) (session.Credential, error) {
	var s savedGrant
	if err := unit.Read(filepath.Join(dir, grantFile), &s); err != nil {
		return session.Credential{}, err
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return session.Credential{}, err
	}
	chain, err := parse(s.Chain)
	if err != nil {
		return session.Credential{}, err
	}
	id, err := credential.FromX509(chain[0])
	return session.Credential{Certificate: tls.Certificate{Certificate: s.Chain, PrivateKey: key, Leaf: chain[0]}, Identity: id}, err
}
