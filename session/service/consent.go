package service

import (
	"context"
	"crypto/ed25519"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
)

// wantsConsent reports whether a person lacks a credential that her signature
// would get.
func (s *Service) wantsConsent(p *person) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.good(p.held) && p.missing != nil && xos.Is(p.missing, xos.Permission)
}

// mine is the caller, who must have a session.
func (s *Service) mine(ctx context.Context) (*person, error) {
	uid, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.Of(ctx, uid)
	if err != nil {
		return nil, err
	}
	if p := s.find(l.Identity.Account); p != nil {
		return p, nil
	}
	return nil, xos.Errorf(xos.Permission, "%s has no session here", l.Identity.Account)
}

// Status implements DelegationHandler.
func (s *Service) Status(ctx context.Context, _ *connect.Request[xosv1.DelegationStatusRequest]) (*connect.Response[xosv1.DelegationStatusResponse], error) {
	p, err := s.mine(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(s.status(p)), nil
}

func (s *Service) status(p *person) *xosv1.DelegationStatusResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &xosv1.DelegationStatusResponse{Account: p.account.String(), Node: string(s.cfg.Node), SshMissing: p.terms.Refused}
	if s.good(p.held) {
		out.Held, out.NotAfter, out.Until = true, timestamppb.New(p.held.Identity.NotAfter), timestamppb.New(p.terms.Until)
		out.Mode, out.Depth = p.terms.Mode, int64(p.terms.Depth)
	}
	if p.onward != nil && p.onward.cert != nil {
		out.SshNotAfter = timestamppb.New(time.Unix(int64(p.onward.cert.ValidBefore), 0))
	}
	if run := s.agents[p.account]; run != nil {
		out.Agent = run.socket
	}
	if p.missing != nil {
		out.Missing = p.missing.Error()
	}
	return out
}

// own verifies a certificate that the caller's agent has: her own, not one of a
// session somewhere.
func (s *Service) own(p *person, wire []byte) (*ssh.Certificate, vom.Identity, error) {
	cert, err := credential.ParseSSH(wire)
	if err != nil {
		return nil, vom.Identity{}, err
	}
	who, err := s.Verifier.SSH(cert, p.account.String())
	if err == nil && who.Node != "" {
		err = xos.Errorf(xos.Permission, "this is the certificate of a session on %s, not your own", who.Node)
	}
	return cert, who, err
}

// Terms implements DelegationHandler.
func (s *Service) Terms(ctx context.Context, req *connect.Request[xosv1.TermsRequest]) (*connect.Response[xosv1.TermsResponse], error) {
	p, err := s.mine(ctx)
	if err != nil {
		return nil, err
	}
	_, who, err := s.own(p, req.Msg.SshCertificate)
	if err != nil {
		return nil, err
	}
	key, err := s.keyOf(p)
	if err != nil {
		return nil, err
	}
	content, err := consent.Terms(who, s.cfg.Node, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.TermsResponse{Content: content}), nil
}

// Consent implements DelegationHandler. The signature is what proves that the
// caller has the certificate's key: sshd has not seen this one.
func (s *Service) Consent(ctx context.Context, req *connect.Request[xosv1.ConsentRequest]) (*connect.Response[xosv1.DelegationStatusResponse], error) {
	p, err := s.mine(ctx)
	if err != nil {
		return nil, err
	}
	cert, who, err := s.own(p, req.Msg.SshCertificate)
	if err != nil {
		return nil, err
	}
	key, err := s.keyOf(p)
	if err != nil {
		return nil, err
	}
	if _, err := consent.Verify(req.Msg.Content, req.Msg.Signature, cert, who, s.cfg.Node, key.Public().(ed25519.PublicKey), s.Now()); err != nil {
		return nil, err
	}
	if d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node); !d.Allow {
		return nil, forbidden(p.account, d)
	}
	s.mu.Lock()
	has := s.good(p.held) && p.held.Identity.Source == who.Serial && p.terms.Mode == string(vom.Signed) && !p.terms.Job
	s.mu.Unlock()
	if has { // the core is not asked for what it gave
		return connect.NewResponse(s.status(p)), nil
	}
	// She is here by this certificate, too, as if she had logged in with it.
	if p, err = s.settle(ctx, who, p.uid, nil); err != nil {
		return nil, err
	}
	defer s.done(p)
	wire := cert.Marshal()
	// Not under an attempt without it, whose failure would put this one off.
	p.work.Lock()
	s.mu.Lock()
	p.shown, p.until, p.consent = wire, who.NotAfter, signature{req.Msg.Content, req.Msg.Signature}
	p.fresh, p.notYet = wire, time.Time{}
	s.mu.Unlock()
	p.work.Unlock()
	tryCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.furnish(tryCtx, p); err != nil {
		return nil, err
	}
	return connect.NewResponse(s.status(p)), nil
}
