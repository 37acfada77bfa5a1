// Package auditor serves the log of decisions to those who may read it: Audit
// of api/xos/v1. Root on this machine sees all of it, an administrator of a VO
// what concerns that VO, and everybody else nothing.
package auditor

import (
	"context"
	"errors"
	"log/slog"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Log is the log: infra/audit's.
type Log interface {
	Append(context.Context, audit.Record) error
	Query(audit.Filter) ([]audit.Entry, error)
	Verify(...audit.Mark) (seq uint64, hash string, err error)
}

// Service implements xosv1connect.AuditHandler.
type Service struct {
	history  Log
	verifier *credential.Verifier
	log      *slog.Logger
}

var _ xosv1connect.AuditHandler = (*Service)(nil)

// New makes the service. The verifier must see the latest bundle.
func New(history Log, v *credential.Verifier, log *slog.Logger) *Service {
	return &Service{history, v, log}
}

// Bounds of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// ListAudit gives the newest records that match and that the caller may see.
func (s *Service) ListAudit(ctx context.Context, req *connect.Request[xosv1.ListAuditRequest]) (*connect.Response[xosv1.ListAuditResponse], error) {
	m := req.Msg
	who, vo, err := s.reader(ctx, xos.VOName(m.Vo))
	var found []audit.Entry
	size := int(m.Limit)
	if err == nil {
		found, err = s.page(m, vo, &size)
	}
	// Whoever reads on does what was noted with the first page already.
	if err != nil || m.Before == 0 {
		if err := s.note(ctx, xosv1connect.AuditListAuditProcedure, who, vo, err); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	resp := &xosv1.ListAuditResponse{}
	for _, e := range found {
		resp.Records = append(resp.Records, wire(e))
	}
	if len(found) == size && found[0].Seq > 1 {
		resp.Before = found[0].Seq
	}
	return connect.NewResponse(resp), nil
}

func (s *Service) page(m *xosv1.ListAuditRequest, vo xos.VOName, size *int) ([]audit.Entry, error) {
	switch {
	case m.Limit == 0:
		*size = defaultPage
	case m.Limit < 0 || m.Limit > maxPage:
		return nil, xos.Errorf(xos.Invalid, "a page of %d records: want 1 to %d", m.Limit, maxPage)
	}
	f := audit.Filter{VO: vo, User: xos.UserID(m.User), Action: m.Action, Denied: m.Refused, Before: m.Before, Last: *size}
	if m.Since != nil {
		if err := m.Since.CheckValid(); err != nil {
			return nil, xos.Errorf(xos.Invalid, "since is no time: %v", err)
		}
		f.Since = m.Since.AsTime()
	}
	found, err := s.history.Query(f)
	if err != nil {
		return nil, xos.Errorf(xos.KindOf(err), "reading the audit log: %w", err)
	}
	return found, nil
}

// VerifyAudit walks the chain. That it is broken is an answer, not an error.
func (s *Service) VerifyAudit(ctx context.Context, req *connect.Request[xosv1.VerifyAuditRequest]) (*connect.Response[xosv1.VerifyAuditResponse], error) {
	resp := &xosv1.VerifyAuditResponse{}
	p := rpc.PeerFrom(ctx)
	who := "root"
	var err error
	if !p.Unix || p.UID != 0 {
		who, _, _ = s.reader(ctx, "")
		err = xos.Errorf(xos.Permission, "only root may verify the audit log").WithHint("run it as root on the machine that keeps it")
	} else {
		err = s.verify(req.Msg, resp)
	}
	if nerr := s.note(ctx, xosv1connect.AuditVerifyAuditProcedure, who, "", err); nerr != nil {
		return nil, nerr
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

func (s *Service) verify(m *xosv1.VerifyAuditRequest, resp *xosv1.VerifyAuditResponse) error {
	var marks []audit.Mark
	if m.Seq != 0 || m.Hash != "" {
		if m.Seq == 0 || len(m.Hash) != 64 {
			return xos.Errorf(xos.Invalid, "what was noted is a record's number and its hash of 64 digits")
		}
		marks = append(marks, audit.Mark{Seq: m.Seq, Hash: m.Hash})
	}
	var err error
	resp.Seq, resp.Hash, err = s.history.Verify(marks...)
	var broken *audit.Broken
	switch {
	case errors.As(err, &broken):
		resp.Broken, resp.Reason = broken.Line, broken.Reason
		s.log.Error("the audit log is not what was written", "line", broken.Line, "reason", broken.Reason)
	case err != nil:
		return xos.Errorf(xos.Internal, "reading the audit log: %w", err)
	default:
		resp.Whole = true
	}
	return nil
}

// reader says who asks, and of which VO she may see the records: "" is all of
// them. A credential delegated to a machine does not count: who administers a
// VO shows her own.
func (s *Service) reader(ctx context.Context, want xos.VOName) (who string, vo xos.VOName, err error) {
	p := rpc.PeerFrom(ctx)
	switch {
	case p.Unix && p.UID == 0:
		return "root", want, nil
	case p.Unix:
		return "uid " + strconv.FormatUint(uint64(p.UID), 10), want, xos.Errorf(xos.Permission, "only root may read the audit log here")
	case len(p.Chain) == 0:
		return p.Address, want, xos.Errorf(xos.Permission, "show a certificate to read the audit log").WithHint("xos login, or run it as root on the core's machine")
	}
	id, err := s.verifier.X509(p.Chain)
	if err != nil {
		return p.Address, want, err
	}
	who = id.Account.String()
	switch {
	case id.Node != "":
		return who, id.VO, xos.Errorf(xos.Permission, "a credential delegated to %s may not read the audit log", id.Node)
	case !vom.Administers(id):
		return who, id.VO, xos.Errorf(xos.Permission, "%s does not administer %s", id.Account, id.VO).
			WithHint("administrators have the role %s", vom.RoleAdmin)
	case want != "" && want != id.VO:
		return who, id.VO, xos.Errorf(xos.Permission, "%s administers %s, not %.80q", id.User, id.VO, string(want))
	}
	return who, id.VO, nil
}

// note writes down who read the log, or was not let.
func (s *Service) note(ctx context.Context, action, who string, vo xos.VOName, refused error) error {
	r := audit.Record{Actor: who, Action: action, VO: vo, Allowed: refused == nil, Admitted: who == "root"}
	if refused != nil {
		r.Reason = refused.Error()
	}
	err := s.history.Append(ctx, r)
	switch {
	case err == nil:
		return nil
	case refused != nil:
		s.log.Error("cannot write the audit log", "error", err)
		return nil
	}
	return xos.Errorf(xos.Unavailable, "writing the audit log: %w", err)
}

func wire(e audit.Entry) *xosv1.AuditRecord {
	user, vo := e.About()
	return &xosv1.AuditRecord{Seq: e.Seq, Time: timestamppb.New(e.Time), Actor: e.Actor, Action: e.Action, Subject: e.Subject,
		Vo: string(vo), User: string(user), Allowed: e.Allowed, Reason: e.Reason, Request: e.Request, Policy: e.Policy, Detail: e.Detail}
}
