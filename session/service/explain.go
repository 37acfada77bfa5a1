package service

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// toldLast is how many past decisions an explanation tells.
const toldLast = 10

// ExplainHere implements SessionHandler: what this machine would decide about
// an account now, and what it decided lately. Users may ask about themselves,
// also when their access has ended.
func (s *Service) ExplainHere(ctx context.Context, req *connect.Request[xosv1.ExplainHereRequest]) (*connect.Response[xosv1.ExplainResponse], error) {
	uid, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.about(uid, req.Msg.Subject)
	if err != nil {
		return nil, err
	}
	allowed, verdict := s.verdict(ctx, a)
	lines := []string{verdict}
	past, err := s.Audit.Query(audit.Filter{Subject: a.String(), Last: toldLast})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the audit log: %w", err)
	}
	slices.Reverse(past)
	for _, e := range past {
		word := "refused"
		if e.Allowed {
			word = "allowed"
		}
		line := fmt.Sprintf("%s: %s %s", e.Time.UTC().Format(time.RFC3339), e.Action, word)
		if e.Reason != "" {
			line += ": " + e.Reason
		}
		if serial := e.Detail["serial"]; serial != "" {
			line += " [certificate " + serial + "]"
		}
		lines = append(lines, line)
	}
	return connect.NewResponse(&xosv1.ExplainResponse{Allowed: allowed, Lines: lines}), nil
}

// about finds out whom a question concerns: an account, a session, or the
// serial of a certificate that was shown here.
func (s *Service) about(uid uint32, subject string) (xos.Account, error) {
	own, known := s.Accounts.UserOf(uid)
	if uid != 0 && !known {
		return xos.Account{}, xos.Errorf(xos.Permission, "uid %d is no grid user's", uid).WithHint("ask as root, or as yourself in the grid")
	}
	var a xos.Account
	switch parsed, err := xos.ParseAccount(subject); {
	case subject == "" && uid == 0:
		return a, xos.Errorf(xos.Invalid, "about whom?").WithHint("xos explain USER@VO")
	case subject == "":
		return own, nil
	case err == nil:
		a = parsed
	default:
		var found bool
		if a, found = s.accountOf(subject); !found {
			return a, xos.Errorf(xos.NotFound, "%.80q is no account, session or certificate known here", subject)
		}
	}
	if uid != 0 && a != own {
		return xos.Account{}, xos.Errorf(xos.Permission, "you may ask about yourself, %s", own)
	}
	return a, nil
}

func (s *Service) accountOf(subject string) (xos.Account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.sessions {
		if string(id) == subject || l.Identity.Serial == subject {
			return l.Identity.Account, true
		}
	}
	for a, p := range s.people {
		if p.who.Serial == subject {
			return a, true
		}
	}
	return xos.Account{}, false
}

// verdict is what would be decided now.
func (s *Service) verdict(ctx context.Context, a xos.Account) (bool, string) {
	who := vom.Identity{Attributes: xos.Attributes{Account: a}} // issued who knows when
	s.mu.Lock()
	if p := s.people[a]; p != nil && !p.who.Issued.IsZero() {
		who = p.who
		who.Account = a
	}
	s.mu.Unlock()
	b := s.Bundle()
	switch r, revoked := credential.Revoked(b.Revocations, who); {
	case !s.serves(a.VO):
		return false, fmt.Sprintf("%s does not serve VO %s", s.cfg.Node, a.VO)
	case s.Now().After(b.Issued.Add(b.Offline)):
		return false, fmt.Sprintf("%s has had no news from the core since %s, and lets nobody in", s.cfg.Node, b.Issued.UTC().Format(time.RFC3339))
	case revoked:
		return false, fmt.Sprintf("the certificates of %s issued until %s are revoked: %s", a, r.Before.UTC().Format(time.RFC3339), r.Reason)
	}
	if who.Issued.IsZero() {
		who.Issued = s.Now()
	}
	d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node)
	if !d.Allow {
		return false, "a login would be refused: " + d.Reason
	}
	return true, "a valid certificate would be let in: " + d.Reason
}
