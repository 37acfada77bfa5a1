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

// spare is how long a credential must still be good to be used: this, or a
// tenth of its validity.
const spare = 10 * time.Second

// delegateTime bounds how long a login waits for the core.
const delegateTime = 4 * time.Second

// good reports whether a credential may be used.
func (s *Service) good(c *session.Credential) bool {
	if c == nil {
		return false
	}
	need := min(spare, c.Identity.NotAfter.Sub(c.Identity.Issued)/10)
	return s.Now().Add(need).Before(c.Identity.NotAfter)
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

// delegate has the core certify a key of this machine, and one of her session,
// against what is shown: her certificate, or the credential that is held. The
// key is the former one, where there is one, so that the stored pair fits at
// every moment, and a consent does.
func (s *Service) delegate(ctx context.Context, p *person, by evidence) (grant, error) {
	fail := func(err error) (grant, error) { return grant{}, err }
	key, err := s.keyOf(p)
	if err != nil {
		return fail(err)
	}
	req := &xosv1.DelegateRequest{HeldChain: by.held, SshCertificate: by.shown, Consent: by.consent.Content, ConsentSignature: by.consent.Signature}
	if len(by.shown) > 0 {
		cert, err := credential.ParseSSH(by.shown)
		if err != nil {
			return fail(err)
		}
		if _, err := s.Verifier.SSH(cert, p.account.String()); err != nil {
			return fail(err)
		}
	}
	if req.Csr, err = requestFor(p.account, key); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	on, job := p.onward, p.terms.Job && len(by.held) > 0
	s.mu.Unlock()
	if job {
		on = nil
	} else {
		if on == nil {
			if on, err = newOnward(); err != nil {
				return fail(err)
			}
		}
		if req.SshCsr, err = requestFor(p.account, on.key); err != nil {
			return fail(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, delegateTime)
	defer cancel()
	resp, err := s.Credentials.Delegate(ctx, connect.NewRequest(req))
	if err != nil {
		return fail(err)
	}
	c, err := s.credentialOf(p.account, resp.Msg.X509Chain, key)
	if err != nil {
		return fail(err)
	}
	t := terms{Until: c.Identity.NotAfter, Mode: resp.Msg.Mode, Depth: int(resp.Msg.Depth), Job: job, Refused: resp.Msg.SshRefused}
	if resp.Msg.Until.IsValid() && resp.Msg.Until.AsTime().After(t.Until) {
		t.Until = resp.Msg.Until.AsTime()
	}
	return grant{c, t, on, resp.Msg.SshCertificate}, nil
}

// keyOf gives this machine's key for a person.
func (s *Service) keyOf(p *person) (ed25519.PrivateKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.held != nil {
		if key, ok := p.held.Certificate.PrivateKey.(ed25519.PrivateKey); ok {
			return key, nil
		}
	}
	if p.key == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		p.key = key
	}
	return p.key, nil
}

func requestFor(a xos.Account, key ed25519.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: a.String()}}, key)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "requesting a credential: %w", err)
	}
	return csr, nil
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
		return session.Credential{}, xos.Errorf(xos.Internal, "the core delegated %s to %q, wanted %s to %s", id.Account, id.Node, a, s.cfg.Node)
	}
	return session.Credential{Certificate: tls.Certificate{Certificate: ders, PrivateKey: key, Leaf: chain[0]}, Identity: id}, nil
}

// hold keeps what was granted, and plans its renewal. The caller holds p.work.
func (s *Service) hold(p *person, g grant) (session.Credential, error) {
	if err := s.store(p.uid, g.Credential); err != nil {
		return session.Credential{}, err
	}
	if err := s.keepOnward(p, g.onward, g.line); err != nil {
		s.Log.Warn("a session has no certificate to go on with", "account", p.account, "error", err)
	}
	g.Credential.Until = g.terms.Until
	s.mu.Lock()
	if !g.terms.Until.Equal(p.terms.Until) {
		p.warned = s.passed(g.terms.Until)
	}
	p.held, p.terms, p.fresh = &g.Credential, g.terms, nil
	p.schedule(g.Credential, s.Now())
	s.wake(p)
	s.mu.Unlock()
	return g.Credential, s.save(p)
}

// store keeps a credential for the mount process.
func (s *Service) store(uid uint32, c session.Credential) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.Certificate.PrivateKey)
	if err != nil {
		return xos.Errorf(xos.Internal, "encoding a key: %w", err)
	}
	var chain bytes.Buffer
	for _, der := range c.Certificate.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	dir := s.credentialDir(uid)
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
	return nil
}

// expectCredential has what a mount process finds be either nothing, for which it
// waits, or what store puts there. Nothing may be held.
func (s *Service) expectCredential(uid uint32) error {
	dir := s.credentialDir(uid)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.Remove(filepath.Join(dir, "cert.pem"))
	}
	if err != nil && !os.IsNotExist(err) {
		return xos.Errorf(xos.Internal, "making room for a credential: %w", err)
	}
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
	if p.timer != nil {
		p.timer.Stop()
	}
	p.held, p.shown, p.delegation = nil, nil, delegation{}
	s.mu.Unlock()
	s.stopAgent(p)
	if err := os.RemoveAll(s.credentialDir(p.uid)); err != nil {
		s.Log.Error("removing a credential", "account", p.account, "error", err)
	}
}
