package service

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

const (
	// passwordTime bounds how long the core may take to check a password, less
	// than the module waits.
	passwordTime = 25 * time.Second
	// maxChecking bounds passwords that are checked at once, so that a flood
	// of them leaves room for other logins.
	maxChecking = 32
)

// PAMAuth implements wire.Handler: the core certifies the account against the
// password, as for "xos login", on a key that only says that the certificate
// is new. It is verified like one that a user shows, and what opens the session
// is the certificate; the key is never kept.
func (s *Service) PAMAuth(ctx context.Context, p wire.Peer, r wire.PAMAuthRequest) error {
	proc, err := processOf(p)
	if err != nil {
		return err
	}
	v := visitor{peer: p, host: r.RemoteHost}
	a, from := r.Account, "from "+v.origin(r.Account).Name
	s.mu.Lock()
	wait := s.tries.wait(a, from, s.Now())
	s.mu.Unlock()
	if wait > 0 {
		return s.refused(ctx, v, a, "", xos.Errorf(xos.Unavailable, "too many wrong passwords").WithHint("try again in %v", wait.Truncate(time.Second)+time.Second))
	}
	who, shown, err := s.check(ctx, proc, r)
	switch {
	case err == nil:
	case xos.Is(err, xos.Unavailable), xos.Is(err, xos.Internal):
		return s.refused(ctx, v, a, "", err)
	default:
		s.mu.Lock()
		s.tries.wrong(a, from, s.Now())
		s.mu.Unlock()
		id := refusalID(s.refuse(ctx, v, a, "", marked(vom.RulePassword, err), true))
		// One answer, so that nobody learns from it who exists.
		return xos.Errorf(xos.Permission, "wrong user or password").WithHint("why: root, by xos explain login %s", id)
	}
	s.mu.Lock()
	s.tries.right(a, from)
	s.mu.Unlock()
	v.known = true
	if d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node); !d.Allow {
		return s.refused(ctx, v, a, who.Serial, forbidden(a, d))
	}
	by := [2]process.ID{proc, proc}
	if parent, err := process.Parent(p.PID); err == nil {
		by[1] = parent
	}
	if again, err := processOf(p); err != nil || again != proc {
		return xos.Errorf(xos.Unavailable, "the login process is gone")
	}
	if err := s.remember(&proof{account: a, shown: shown, by: by, until: s.Now().Add(proofTime)}); err != nil {
		return err
	}
	s.expect(who)
	return nil
}

// check asks the core, and verifies its answer.
func (s *Service) check(ctx context.Context, proc process.ID, r wire.PAMAuthRequest) (vom.Identity, []byte, error) {
	fail := func(err error) (vom.Identity, []byte, error) { return vom.Identity{}, nil, err }
	a := r.Account
	switch {
	case !s.serves(a.VO):
		return fail(xos.Errorf(xos.Permission, "%s does not serve VO %s", s.cfg.Node, a.VO))
	case len(r.Password) == 0 || !utf8.Valid(r.Password):
		return fail(xos.Errorf(xos.Permission, "that can be no password"))
	}
	// What would refuse the session in the end is better said now.
	if err := s.Accounts.Settled(a, proc); err != nil {
		return fail(err)
	}
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	default:
		return fail(xos.Errorf(xos.Unavailable, "too many logins at once").WithHint("try again"))
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fail(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: a.String()}}, key)
	clear(key)
	if err != nil {
		return fail(xos.Errorf(xos.Internal, "requesting a credential: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, passwordTime)
	defer cancel()
	resp, err := s.Credentials.Issue(ctx, connect.NewRequest(&xosv1.IssueRequest{Account: a.String(), Password: string(r.Password), Csr: csr}))
	if err != nil {
		return fail(err)
	}
	cert, err := credential.ParseSSH([]byte(resp.Msg.SshCertificate))
	if err != nil {
		return fail(xos.Errorf(xos.Internal, "what the core certified: %w", err))
	}
	if want, err := ssh.NewPublicKey(public); err != nil || !bytes.Equal(want.Marshal(), cert.Key.Marshal()) {
		return fail(xos.Errorf(xos.Internal, "the core certified another key"))
	}
	who, err := s.Verifier.SSH(cert, a.String())
	return who, cert.Marshal(), err
}
