package service

import (
	"context"
	"sync"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// Of implements session.Sessions.
func (s *Service) Of(_ context.Context, uid uint32) (session.Session, error) {
	a, ok := s.Accounts.UserOf(uid)
	if !ok {
		return session.Session{}, xos.Errorf(xos.Permission, "uid %d is no grid user's", uid).WithHint("log in with ssh USER@VO@%s", s.cfg.Node)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.newest(a)
	if l == nil {
		return session.Session{}, xos.Errorf(xos.Permission, "%s has no session on %s", a, s.cfg.Node).WithHint("log in again")
	}
	return l.Session, nil
}

// newest gives an account's newest session, or nil. mu is held.
func (s *Service) newest(a xos.Account) *login {
	var found *login
	for _, l := range s.sessions {
		if l.Identity.Account == a && (found == nil || l.Opened.After(found.Opened)) {
			found = l
		}
	}
	return found
}

// Admit implements session.Sessions.
func (s *Service) Admit(ctx context.Context, who vom.Identity, grant session.Credential) (session.Mapping, func(), error) {
	fail := func(err error) (session.Mapping, func(), error) { return session.Mapping{}, nil, err }
	switch {
	case grant.Identity.Account != who.Account || grant.Identity.Node != s.cfg.Node:
		return fail(xos.Errorf(xos.Permission, "a grant of %s to %q does not admit %s to %s", grant.Identity.Account, grant.Identity.Node, who.Account, s.cfg.Node))
	case !s.serves(who.VO):
		return fail(xos.Errorf(xos.Permission, "%s does not serve VO %s", s.cfg.Node, who.VO))
	}
	if err := s.standing(who); err != nil {
		return fail(err)
	}
	uid, err := s.Accounts.Admit(ctx, who.Account)
	if err != nil {
		return fail(err)
	}
	p, err := s.settle(ctx, who, uid, nil)
	if err != nil {
		return fail(err)
	}
	release := sync.OnceFunc(func() { s.done(p) })
	if err := s.keep(p, grant); err != nil {
		release()
		return fail(err)
	}
	// A job without its home would write beside it: it does not start.
	if err := s.furnish(ctx, p); err != nil && !(who.Home == "" && xos.Is(err, xos.NotFound)) {
		release()
		return fail(err)
	}
	if err := s.standing(who); err != nil { // revoked meanwhile, see PAMOpen
		release()
		return fail(err)
	}
	return s.mapping(p), release, nil
}

// keep takes a grant if it is better than what is held: that one is renewed, so
// what counts is for how long it can be.
func (s *Service) keep(p *person, c session.Credential) error {
	p.work.Lock()
	defer p.work.Unlock()
	if c.Certificate.PrivateKey == nil {
		return nil
	}
	if c.Until.IsZero() {
		c.Until = c.Identity.NotAfter
	}
	s.mu.Lock()
	held, until := p.held, p.terms.Until
	s.mu.Unlock()
	if held != nil && (s.good(held) || !s.good(&c)) && !c.Until.After(until) {
		return nil
	}
	_, err := s.hold(p, grant{Credential: c, terms: terms{Until: c.Until, Job: true}})
	return err
}

// Revoked implements session.Sessions.
func (s *Service) Revoked() <-chan session.Sentence { return s.revoked }
