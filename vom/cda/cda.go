// Package cda is the credential distribution authority (CDA): it certifies
// members of VOs, and machines that act for them. It serves Credentials of
// api/xos/v1.
package cda

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"log/slog"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/credential"
)

// Records says who may be certified: vom/xvoms.
type Records interface {
	Login(context.Context, xos.Account, vom.Proof) (vom.Identity, error)
	Renew(context.Context, vom.Identity) (vom.Identity, error)
	Delegate(ctx context.Context, source vom.Identity, node xos.NodeID, as vom.Origin, notAfter time.Time) (vom.Identity, error)
	Origin(ctx context.Context, id vom.Identity) (vom.Origin, error)
	Revoke(ctx context.Context, serial string, issued time.Time, reason string) error
	Explain(ctx context.Context, account, serial string) (allowed bool, lines []string, err error)
	Rules(ctx context.Context, account, serial string) ([]vom.Verdict, error)
}

// Audit is where decisions are written down: infra/audit's Bounded. Note says
// whether one has a line there, which of refusals not each has.
type Audit interface {
	Note(context.Context, audit.Record) (line bool, err error)
}

// Service implements xosv1connect.CredentialsHandler.
type Service struct {
	records   Records
	authority *authority.Authority
	verifier  *credential.Verifier
	audit     Audit
	delegates Delegating
	now       func() time.Time
	log       *slog.Logger
}

var _ xosv1connect.CredentialsHandler = (*Service)(nil)

// New makes the service. The verifier must see the records' latest bundle.
func New(r Records, a *authority.Authority, v *credential.Verifier, log Audit, d Delegating, now func() time.Time, l *slog.Logger) *Service {
	if d.Validity <= 0 {
		d.Validity = DefaultValidity
	}
	return &Service{records: r, authority: a, verifier: v, audit: log, delegates: d, now: now, log: l}
}

// Trust gives the public keys; anybody may have them.
func (s *Service) Trust(context.Context, *connect.Request[xosv1.TrustRequest]) (*connect.Response[xosv1.TrustResponse], error) {
	return connect.NewResponse(TrustOf(s.authority)), nil
}

// TrustOf gives an authority's public keys in the form of the wire.
func TrustOf(a *authority.Authority) *xosv1.TrustResponse {
	t := a.Trust()
	return &xosv1.TrustResponse{X509Roots: t.X509Roots, SshUserCas: t.SSHUserCAs, SshHostCas: t.SSHHostCAs}
}

// Issue certifies a member who proves who she is. Where she changes her password
// with the old one, that is what goes on record.
func (s *Service) Issue(ctx context.Context, req *connect.Request[xosv1.IssueRequest]) (*connect.Response[xosv1.IssueResponse], error) {
	m := req.Msg
	action := "issue"
	if m.Password != "" && m.NewPassword != "" {
		action = "passwd"
	}
	return audited(ctx, s, action, m.Account, func() (*xosv1.IssueResponse, error) {
		a, err := xos.ParseAccount(m.Account)
		if err != nil {
			return nil, err
		}
		csr, pub, err := authority.ParseRequest(m.Csr)
		if err != nil {
			return nil, err
		}
		id, err := s.records.Login(ctx, a, vom.Proof{Password: m.Password, Token: m.Token, NewPassword: m.NewPassword, Key: credential.Fingerprint(pub)})
		if err != nil {
			return nil, err
		}
		return s.certify(ctx, csr, pub, id)
	})
}

// Renew certifies the bearer of a valid certificate anew.
func (s *Service) Renew(ctx context.Context, req *connect.Request[xosv1.RenewRequest]) (*connect.Response[xosv1.IssueResponse], error) {
	old, err := s.verifier.X509(rpc.PeerFrom(ctx).Chain)
	return audited(ctx, s, "renew", accountOf(old), func() (*xosv1.IssueResponse, error) {
		if err != nil {
			return nil, err
		}
		csr, pub, err := authority.ParseRequest(req.Msg.Csr)
		if err != nil {
			return nil, err
		}
		old.Key = credential.Fingerprint(pub)
		id, err := s.records.Renew(ctx, old)
		if err != nil {
			return nil, err
		}
		return s.certify(ctx, csr, pub, id)
	})
}

// certify signs both forms of a user's certificate.
func (s *Service) certify(ctx context.Context, csr *x509.CertificateRequest, pub ed25519.PublicKey, id vom.Identity) (*xosv1.IssueResponse, error) {
	chain, err := s.authority.User(ctx, csr, id)
	if err != nil {
		return nil, err
	}
	line, err := s.authority.SSHUser(ctx, pub, id)
	if err != nil {
		return nil, err
	}
	return &xosv1.IssueResponse{X509Chain: chain, SshCertificate: line, Attributes: wire(id.Attributes), NotAfter: timestamppb.New(id.NotAfter)}, nil
}

// Revoke ends the certificate that the caller shows.
func (s *Service) Revoke(ctx context.Context, _ *connect.Request[xosv1.RevokeRequest]) (*connect.Response[xosv1.RevokeResponse], error) {
	id, err := s.verifier.X509(rpc.PeerFrom(ctx).Chain)
	return audited(ctx, s, "revoke", accountOf(id), func() (*xosv1.RevokeResponse, error) {
		if err != nil {
			return nil, err
		}
		return &xosv1.RevokeResponse{}, s.records.Revoke(ctx, id.Serial, id.Issued, "revoked by its owner at "+s.now().UTC().Format(time.RFC3339))
	})
}

// Explain says what the core knows of an account or a certificate.
func (s *Service) Explain(ctx context.Context, req *connect.Request[xosv1.ExplainRequest]) (*connect.Response[xosv1.ExplainResponse], error) {
	account, serial := req.Msg.Account, req.Msg.Serial
	p := rpc.PeerFrom(ctx)
	switch {
	case p.Unix && p.UID == 0:
	case len(p.Chain) > 0:
		if _, err := s.verifier.Machine(p.Chain); err == nil {
			break
		}
		// Even who is revoked may ask why; so only the chain is verified.
		if err := s.verifier.Chain(p.Chain); err != nil {
			return nil, err
		}
		id, err := credential.FromX509(p.Chain[0])
		if err != nil {
			return nil, err
		}
		if account != "" && account != id.Account.String() || serial != "" && serial != id.Serial {
			return nil, xos.Errorf(xos.Permission, "you may ask about yourself, %s", id.Account)
		}
		account, serial = id.Account.String(), id.Serial
	default:
		return nil, xos.Errorf(xos.Permission, "show a certificate to ask").WithHint("xos login")
	}
	if account == "" && serial == "" {
		return nil, xos.Errorf(xos.Invalid, "about whom?").WithHint("xos explain USER@VO")
	}
	allowed, lines, err := s.records.Explain(ctx, account, serial)
	if err != nil {
		return nil, err
	}
	verdicts, err := s.records.Rules(ctx, account, serial)
	if err != nil {
		return nil, err
	}
	resp := &xosv1.ExplainResponse{Allowed: allowed, Lines: lines}
	for _, v := range verdicts {
		if v.Rule == vom.RuleBan && v.Refused {
			resp.Allowed, resp.Lines = false, append([]string{v.Text}, resp.Lines...)
		}
		resp.Rules = append(resp.Rules, wireRule(v))
	}
	return connect.NewResponse(resp), nil
}

func wireRule(v vom.Verdict) *xosv1.Rule {
	r := &xosv1.Rule{Name: string(v.Rule), Refused: v.Refused, Text: v.Text}
	if v.Refused {
		r.Change = v.Rule.Change()
	}
	return r
}

// audited runs f and writes down what came of it.
func audited[A any](ctx context.Context, s *Service, action, subject string, f func() (*A, error)) (*connect.Response[A], error) {
	answer, err := f()
	p := rpc.PeerFrom(ctx)
	rec := audit.Record{Actor: p.Address, Action: action, Subject: subject, Allowed: err == nil}
	if p.Unix {
		rec.Actor, rec.Admitted = "uid "+strconv.FormatUint(uint64(p.UID), 10), p.UID == 0
	}
	if a, bad := xos.ParseAccount(subject); bad == nil {
		rec.User, rec.VO = a.User, a.VO
	}
	if err != nil {
		rec.Reason = err.Error()
	}
	line, aerr := s.audit.Note(ctx, rec)
	if aerr != nil && err == nil {
		// What is not on record must not be handed out.
		err = xos.Errorf(xos.Unavailable, "writing the audit log: %w", aerr)
	}
	if err != nil && (line || aerr != nil) {
		s.log.Info("refused", "action", action, "subject", subject, "peer", rec.Actor, "error", err)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

func accountOf(id vom.Identity) string {
	if id.User == "" {
		return ""
	}
	return id.Account.String()
}

func wire(a xos.Attributes) *xosv1.Attributes {
	w := &xosv1.Attributes{User: string(a.User), Vo: string(a.VO), Home: string(a.Home)}
	for _, g := range a.Groups {
		w.Groups = append(w.Groups, string(g))
	}
	for _, r := range a.Roles {
		w.Roles = append(w.Roles, string(r))
	}
	return w
}
