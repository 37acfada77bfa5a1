package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
// an account or a certificate now and what it decided lately, or why it refused
// a login. Users may ask about themselves, also when their access has ended.
func (s *Service) ExplainHere(ctx context.Context, req *connect.Request[xosv1.ExplainHereRequest]) (*connect.Response[xosv1.ExplainResponse], error) {
	uid, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	kind, subject := req.Msg.Kind, req.Msg.Subject
	if kind == "" && strings.HasPrefix(subject, refusalPrefix) {
		kind = "login"
	}
	switch kind {
	case "", "user", "cert":
	case "login":
		if strings.HasPrefix(subject, refusalPrefix) {
			return s.explainLogin(uid, subject)
		}
	default:
		return nil, xos.Errorf(xos.Invalid, "%.40q cannot be explained: a user, cert or login can", kind)
	}
	a, cert, err := s.about(uid, subject)
	if err != nil {
		return nil, err
	}
	if kind == "user" {
		cert = nil
	}
	verdicts := s.rules(ctx, a, cert)
	resp := &xosv1.ExplainResponse{Rules: shown(verdicts, uid == 0)}
	if v, refused := refusing(verdicts); refused {
		resp.Lines = []string{v.Text}
	} else {
		resp.Allowed = true
		resp.Lines = []string{"a valid certificate would be let in: " + verdicts[len(verdicts)-1].Text}
	}
	resp.Lines = append(resp.Lines, s.running(a)...)
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
		if from := e.Detail["from"]; from != "" {
			line += " [from " + from + "]"
		}
		if serial := e.Detail["serial"]; serial != "" {
			line += " [certificate " + serial + "]"
		}
		for _, id := range []string{e.Detail["login"], e.Detail["session"]} {
			if id != "" {
				line += " [" + id + "]"
			}
		}
		resp.Lines = append(resp.Lines, line)
	}
	return connect.NewResponse(resp), nil
}

// explainLogin says why a login was refused, then; and by whom it could be let
// in.
func (s *Service) explainLogin(uid uint32, id string) (*connect.Response[xosv1.ExplainResponse], error) {
	own, known := s.Accounts.UserOf(uid)
	if uid != 0 && !known {
		return nil, xos.Errorf(xos.Permission, "uid %d is no grid user's", uid).WithHint("ask as root, or as yourself in the grid")
	}
	x, err := s.loginOf(id, uid == 0)
	if err != nil {
		return nil, err
	}
	if uid != 0 && x.account != own {
		return nil, unknownLogin(id) // others' logins are nobody's business
	}
	line := fmt.Sprintf("%s: login %s of %s refused: %s", clock(x.at), x.id, x.account, plain(x.why))
	if x.serial != "" {
		line += " [certificate " + x.serial + "]"
	}
	return connect.NewResponse(&xosv1.ExplainResponse{Lines: []string{line}, Rules: shown(x.verdicts, uid == 0)}), nil
}

// running tells the fate of what an account runs here, where that is none of
// everybody's.
func (s *Service) running(a xos.Account) []string {
	s.mu.Lock()
	p := s.people[a]
	var fate vom.Fate
	var who vom.Identity
	if p != nil {
		fate, who = p.fate, p.who
	}
	s.mu.Unlock()
	r, _ := credential.Revoked(s.Bundle().Revocations, who)
	switch fate {
	case vom.FateFreeze:
		return []string{fmt.Sprintf("what %s runs here is frozen until %s, then ended; it goes on if the membership comes back before", a, clock(r.Grace))}
	case vom.FateFinish:
		return []string{fmt.Sprintf("what %s runs here may finish until %s", a, clock(r.Grace))}
	}
	return nil
}

// about finds out whom a question concerns: an account, a session, or the
// serial of a certificate that was shown here; and her newest certificate, or
// the one asked about, if it is known.
func (s *Service) about(uid uint32, subject string) (xos.Account, *vom.Identity, error) {
	own, known := s.Accounts.UserOf(uid)
	if uid != 0 && !known {
		return xos.Account{}, nil, xos.Errorf(xos.Permission, "uid %d is no grid user's", uid).WithHint("ask as root, or as yourself in the grid")
	}
	var a xos.Account
	switch parsed, err := xos.ParseAccount(subject); {
	case subject == "" && uid == 0:
		return a, nil, xos.Errorf(xos.Invalid, "about whom?").WithHint("xos explain USER@VO")
	case subject == "":
		a = own
	case err == nil:
		a = parsed
	default:
		who, found := s.identityOf(subject)
		if !found {
			if who, found, err = s.pastIdentity(subject, own, uid == 0); err != nil {
				return a, nil, err
			}
		}
		if uid != 0 && (!found || who.Account != own) {
			return a, nil, xos.Errorf(xos.Permission, "you may ask about yourself, %s", own)
		}
		if !found {
			return a, nil, xos.Errorf(xos.NotFound, "%.80q is no account, session or certificate known here", subject)
		}
		return who.Account, &who, nil
	}
	if uid != 0 && a != own {
		return xos.Account{}, nil, xos.Errorf(xos.Permission, "you may ask about yourself, %s", own)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.people[a]; p != nil && !p.who.Issued.IsZero() {
		who := p.who
		who.Account = a                                        // taken away when she was expelled
		who.NotBefore, who.NotAfter = time.Time{}, time.Time{} // she may have another
		return a, &who, nil
	}
	return a, nil, nil
}

func (s *Service) identityOf(subject string) (vom.Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.sessions {
		if string(id) == subject || l.Identity.Serial == subject {
			return l.Identity, true
		}
	}
	for a, p := range s.people {
		if p.who.Serial == subject {
			who := p.who
			who.Account = a
			return who, true
		}
	}
	return vom.Identity{}, false
}

// pastIdentity finds whose a session was that has ended, or a certificate that
// was let in with; users find their own.
func (s *Service) pastIdentity(subject string, own xos.Account, root bool) (who vom.Identity, found bool, err error) {
	f := audit.Filter{Action: "login", Last: 1}
	switch {
	case strings.HasPrefix(subject, "s-"):
		f.Detail = map[string]string{"session": subject}
	case subject != "" && strings.Trim(subject, "0123456789") == "":
		f.Detail = map[string]string{"serial": subject}
	default:
		return who, false, nil
	}
	if !root {
		f.Subject = own.String()
	}
	past, err := s.Audit.Query(f)
	if err != nil {
		return who, false, xos.Errorf(xos.Internal, "reading the audit log: %w", err)
	}
	if len(past) == 0 || !past[0].Allowed {
		return who, false, nil
	}
	e := past[0]
	if who.Account, err = xos.ParseAccount(e.Subject); err != nil {
		return who, false, err
	}
	// It was good then, so what was refused by then does not concern it.
	who.Serial, who.Issued = e.Detail["serial"], e.Time
	return who, true, nil
}
