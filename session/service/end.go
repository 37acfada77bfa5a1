package service

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
)

// began tells that somebody comes, while her session is being furnished; what it
// gives waits until that is written down.
func (s *Service) began(l *login) (written func()) {
	if s.Stays == nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Stays.Began(l.Session) }()
	return func() { <-done }
}

// ended tells that somebody of whom began has told has left.
func (s *Service) ended(l *login) {
	if s.Stays != nil {
		s.Stays.Ended(l.Session)
	}
}

// begin makes a session exist: recorded, found, and ended with its process.
func (s *Service) begin(p *person, l *login) error {
	if err := writeRecord(s.sessionPath(l.ID), l); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		os.Remove(s.sessionPath(l.ID))
		return xos.Errorf(xos.Unavailable, "the session service is restarting").WithHint("log in again")
	}
	s.sessions[l.ID] = l
	p.count(l, 1)
	s.work.Go(func() { s.watch(l) })
	return nil
}

// scopeAfter is how long after its opening a session's scope is looked for:
// pam_systemd comes after pam_xos. scopeEvery is how often it is seen whether
// one is empty whose login process has ended.
const (
	scopeAfter = time.Second
	scopeEvery = time.Second
)

// watch ends a session with its last process: the login process, and what it
// left running in its scope.
func (s *Service) watch(l *login) {
	ctx, cancel := context.WithTimeout(s.ctx, scopeAfter)
	err := l.Process.Wait(ctx)
	late := ctx.Err() != nil
	cancel()
	if late && s.ctx.Err() == nil {
		s.learnScope(l)
		err = l.Process.Wait(s.ctx)
	}
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.Log.Error("a session cannot be watched", "session", l.ID, "error", err)
		return
	}
	scope := s.scopeOf(l)
	if scope.Empty() {
		s.end(l, "its login process ended")
		return
	}
	tick := time.NewTicker(scopeEvery)
	defer tick.Stop()
	for !scope.Empty() {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
	s.end(l, "its last process ended")
}

func (s *Service) scopeOf(l *login) process.Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.Scope
}

// learnScope notes the scope of a session while its login process runs, and
// gives it.
func (s *Service) learnScope(l *login) process.Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Scope != "" || s.sessions[l.ID] != l {
		return l.Scope
	}
	scope := process.ScopeOf(l.Process, l.Mapping.UID)
	for _, other := range s.sessions {
		if other.Scope == scope {
			return "" // a su within that session
		}
	}
	if l.Scope = scope; scope != "" {
		if err := writeRecord(s.sessionPath(l.ID), l); err != nil {
			s.Log.Error("a session's record", "session", l.ID, "error", err)
		}
	}
	return l.Scope
}

// PAMClose implements wire.Handler. What the session leaves running is of it
// still: watch ends it then.
func (s *Service) PAMClose(_ context.Context, _ wire.Peer, id xos.SessionID) error {
	s.mu.Lock()
	l := s.sessions[id]
	s.mu.Unlock()
	if l != nil && !s.learnScope(l).Others(l.Process) {
		s.end(l, "closed")
	}
	return nil
}

// end removes a session, once.
func (s *Service) end(l *login, why string) {
	s.mu.Lock()
	if s.sessions[l.ID] != l {
		s.mu.Unlock()
		return
	}
	delete(s.sessions, l.ID)
	p := s.people[l.Identity.Account]
	if p != nil {
		p.count(l, -1)
	}
	s.mu.Unlock()
	if p != nil {
		s.vouch(p)
	}
	if err := os.Remove(s.sessionPath(l.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Error("removing a session's record", "session", l.ID, "error", err)
	}
	s.ended(l)
	s.Log.Info("session ended", "session", l.ID, "account", l.Identity.Account, "why", why)
	if p != nil {
		s.done(p)
	}
}

// linger waits until nobody can be using a person's home any more, then takes
// it and the credential away. Service.mu is held.
func (s *Service) linger(p *person) {
	if p.idle != nil {
		p.idle.Stop()
	}
	p.idle = time.AfterFunc(s.cfg.Linger, func() {
		s.mu.Lock()
		if s.ctx.Err() != nil || p.uses > 0 {
			s.mu.Unlock()
			return
		}
		s.work.Add(1)
		s.mu.Unlock()
		defer s.work.Done()
		s.leave(p)
	})
}

// leave ends what a person without sessions and jobs still has here.
func (s *Service) leave(p *person) {
	p.work.Lock()
	defer p.work.Unlock()
	runs, err := s.runs(s.ctx, p.uid)
	s.mu.Lock()
	if p.uses > 0 || s.people[p.account] != p { // back, or dismissed meanwhile
		s.mu.Unlock()
		return
	}
	if runs || err != nil { // what she left running goes on
		s.linger(p)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if err := s.unmount(p); err != nil {
		s.Log.Warn("a home is not unmounted", "account", p.account, "error", err)
		s.mu.Lock()
		if p.uses == 0 {
			s.linger(p)
		}
		s.mu.Unlock()
		return
	}
	s.forget(p)
	if err := s.save(p); err != nil {
		s.Log.Error("a person's record", "error", err)
	}
}

// unmount takes a home away. The caller holds p.work.
func (s *Service) unmount(p *person) error {
	s.mu.Lock()
	volume := p.mounted
	s.mu.Unlock()
	if volume == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := s.Mounter.Unmount(ctx, volume, s.mapping(p)); err != nil {
		return err
	}
	s.mu.Lock()
	p.mounted = ""
	s.mu.Unlock()
	return nil
}

// expel ends everything of a person on this machine.
func (s *Service) expel(p *person, why error) {
	s.Log.Warn("access ended", "account", p.account, "why", why)
	select {
	case s.revoked <- session.Sentence{Account: p.account, Do: session.End}:
	case <-s.ctx.Done():
		return
	}
	s.mu.Lock()
	var open []*login
	for _, l := range s.sessions {
		if l.Identity.Account == p.account {
			open = append(open, l)
		}
	}
	s.mu.Unlock()
	for _, l := range open {
		if err := l.Process.Kill(); err != nil {
			s.Log.Error("a revoked session's process", "session", l.ID, "error", err)
		}
		s.end(l, why.Error())
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	if err := s.kill(ctx, p.uid); err != nil {
		s.Log.Error("processes of a revoked account", "account", p.account, "error", err)
	}
	s.mu.Lock()
	was := p.fate
	p.fate = ""
	s.mu.Unlock()
	if was == vom.FateFreeze {
		// Nothing is left to go on; her slice must not be frozen for a later login.
		if _, err := s.Guard.Freeze(ctx, s.ids(p.uid), false); err != nil {
			s.Log.Error("what was frozen of a revoked account", "account", p.account, "error", err)
		}
	}
	r := audit.Record{Actor: string(s.cfg.Node), Action: "expel", Subject: p.account.String(), Allowed: true, Reason: why.Error()}
	if err := s.Audit.Append(ctx, r); err != nil {
		s.Log.Error("the audit log cannot be written", "error", err)
	}
	p.work.Lock()
	defer p.work.Unlock()
	s.mu.Lock()
	who, dismissed := p.who, s.people[p.account] != p
	s.mu.Unlock()
	if dismissed || s.standing(who) == nil {
		return // gone for good, or logged in anew meanwhile with a certificate that is good
	}
	s.forget(p)
	if err := s.unmount(p); err != nil {
		s.Log.Warn("a home is not unmounted", "account", p.account, "error", err)
	}
	s.mu.Lock()
	p.who.User = "" // sentenced already
	s.mu.Unlock()
	if err := s.save(p); err != nil {
		s.Log.Error("a person's record", "error", err)
	}
}
