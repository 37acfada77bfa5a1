package service

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/machine"
)

// spare is how long a credential must still be good to be used.
const spare = 10 * time.Second

// delegateTime bounds how long a login waits for the core.
const delegateTime = 4 * time.Second

// good reports whether a credential may be used.
func (s *Service) good(c *session.Credential) bool {
	return c != nil && s.Now().Add(spare).Before(c.Identity.NotAfter)
}

// Credential implements session.Sessions.
func (s *Service) Credential(ctx context.Context, a xos.Account) (session.Credential, error) {
	p := s.find(a)
	if p == nil {
		return session.Credential{}, xos.Errorf(xos.Permission, "%s has neither a session nor a job here", a)
	}
	s.mu.Lock()
	held, uses := p.held, p.uses
	s.mu.Unlock()
	switch {
	case uses == 0:
		return session.Credential{}, xos.Errorf(xos.Permission, "%s has neither a session nor a job here", a)
	case s.good(held):
		return *held, nil
	}
	p.work.Lock()
	defer p.work.Unlock()
	return s.obtain(ctx, p)
}

// obtain gives a good credential of a person, a new one if need be: where the
// one held ends before the certificate she showed last. The caller holds
// p.work.
func (s *Service) obtain(ctx context.Context, p *person) (session.Credential, error) {
	s.mu.Lock()
	held, shown, until := p.held, p.shown, p.until
	s.mu.Unlock()
	if s.good(held) && (len(shown) == 0 || until.Sub(held.Identity.NotAfter) < time.Minute) {
		return *held, nil
	}
	c, err := s.delegate(ctx, p, shown)
	if err == nil {
		err = s.hold(p, c)
	}
	if err != nil && s.good(held) {
		return *held, nil // shorter, but good
	}
	return c, err
}

// delegate has the core certify a key of this machine against the certificate
// that the user showed. The key is the former one, where there is one, so that
// the stored pair fits at every moment.
func (s *Service) delegate(ctx context.Context, p *person, shown []byte) (session.Credential, error) {
	if len(shown) == 0 {
		return session.Credential{}, xos.Errorf(xos.Unavailable, "the credential of %s has run out", p.account).WithHint("log in again")
	}
	cert, err := credential.ParseSSH(shown)
	if err != nil {
		return session.Credential{}, err
	}
	if _, err := s.Verifier.SSH(cert, p.account.String()); err != nil {
		return session.Credential{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, delegateTime)
	defer cancel()
	s.mu.Lock()
	held := p.held
	s.mu.Unlock()
	var key ed25519.PrivateKey
	if held != nil {
		key, _ = held.Certificate.PrivateKey.(ed25519.PrivateKey)
	}
	if key == nil {
		if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return session.Credential{}, err
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: p.account.String()}}, key)
	if err != nil {
		return session.Credential{}, xos.Errorf(xos.Internal, "requesting a credential: %w", err)
	}
	resp, err := s.Credentials.Delegate(ctx, connect.NewRequest(&xosv1.DelegateRequest{Csr: csr, SshCertificate: shown}))
	if err != nil {
		return session.Credential{}, err
	}
	return s.credentialOf(p.account, resp.Msg.X509Chain, key)
}

// credentialOf verifies what the core delegated.
func (s *Service) credentialOf(a xos.Account, ders [][]byte, key ed25519.PrivateKey) (session.Credential, error) {
	var chain []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return session.Credential{}, xos.Errorf(xos.Invalid, "a delegated certificate is malformed: %w", err)
		}
		chain = append(chain, c)
	}
	id, err := s.Verifier.X509(chain)
	if err != nil {
		return session.Credential{}, err
	}
	if pub, ok := chain[0].PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(key.Public()) {
		return session.Credential{}, xos.Errorf(xos.Invalid, "the delegated certificate is for another key")
	}
	if id.Account != a || id.Node != s.cfg.Node {
		return session.Credential{}, xos.Errorf(xos.Internal, "the core delegated %s to %q, wanted %s to %q", id.Account, id.Node, a, s.cfg.Node)
	}
	return session.Credential{Certificate: tls.Certificate{Certificate: ders, PrivateKey: key, Leaf: chain[0]}, Identity: id}, nil
}

// hold keeps a credential, in memory and for the mount process.
func (s *Service) hold(p *person, c session.Credential) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.Certificate.PrivateKey)
	if err != nil {
		return xos.Errorf(xos.Internal, "encoding a key: %w", err)
	}
	var chain bytes.Buffer
	for _, der := range c.Certificate.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	dir := s.credentialDir(p.uid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return xos.Errorf(xos.Internal, "keeping a credential: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}, {"cert.pem", chain.Bytes()}} {
		if err := machine.ReplaceFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return xos.Errorf(xos.Internal, "keeping a credential: %w", err)
		}
	}
	s.mu.Lock()
	p.held = &c
	s.mu.Unlock()
	return nil
}

func (s *Service) credentialDir(uid uint32) string {
	return filepath.Join(s.cfg.Run, "cred", strconv.FormatUint(uint64(uid), 10))
}

// loadCredential reads what hold has kept; nil if there is none.
func (s *Service) loadCredential(uid uint32, a xos.Account) *session.Credential {
	dir := s.credentialDir(uid)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil
	}
	id, err := credential.FromX509(pair.Leaf)
	if err != nil || id.Account != a || id.Node != s.cfg.Node {
		return nil
	}
	return &session.Credential{Certificate: pair, Identity: id}
}

// forget ends a person's credential on this machine.
func (s *Service) forget(p *person) {
	s.mu.Lock()
	p.held, p.shown = nil, nil
	s.mu.Unlock()
	if err := os.RemoveAll(s.credentialDir(p.uid)); err != nil {
		s.Log.Error("removing a credential", "account", p.account, "error", err)
	}
}
