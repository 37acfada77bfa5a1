package service

import (
	"context"
	"errors"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// What becomes of those whose access ends. Nothing new begins for them, of any
// fate: standing refuses it. What runs is killed (expel); or stopped until they
// come back or their time is over (freeze); or goes on until then (finish).

// standing says why an identity that was verified before is refused now.
func (s *Service) standing(who vom.Identity) error {
	_, why := s.sentence(who)
	return why
}

// sentence gives the fate of what an identity runs, and why; "" and nil for one
// who has access.
func (s *Service) sentence(who vom.Identity) (vom.Fate, error) {
	b, now := s.Bundle(), s.Now()
	if ban, ok := credential.Banned(b.Bans, who, now); ok {
		return vom.FateEnd, vom.By(vom.RuleBan, credential.BanError(ban))
	}
	if r, ok := credential.Revoked(b.Revocations, who); ok {
		return r.Leaves(now), vom.By(vom.RuleRevocation, xos.Errorf(xos.Permission, "the access of %s was revoked: %s", who.Account, r.Reason))
	}
	if !s.serves(who.VO) {
		return vom.FateEnd, vom.By(vom.RuleServed, xos.Errorf(xos.Permission, "%s does not serve VO %s any more", s.cfg.Node, who.VO))
	}
	return "", nil
}

// frozen reports whether what an account runs here is stopped.
func (s *Service) frozen(a xos.Account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.people[a]
	return p != nil && p.fate == vom.FateFreeze
}

// sweep carries out what the present bundle wants for everybody here.
func (s *Service) sweep() {
	s.mu.Lock()
	people := make([]*person, 0, len(s.people))
	for _, p := range s.people {
		switch {
		case p.who.User == "":
		case p.judging:
			p.appeal = true // by other news than these, perhaps
		default:
			people = append(people, p)
		}
	}
	open := make([]*login, 0, len(s.sessions))
	for _, l := range s.sessions {
		open = append(open, l)
	}
	var known []*person
	for _, p := range s.people {
		if p.viaSSH > 0 || p.vouched {
			known = append(known, p)
		}
	}
	s.mu.Unlock()
	for _, p := range people {
		if _, _, _, todo := s.due(p); !todo {
			continue
		}
		s.mu.Lock()
		p.judging = true
		s.mu.Unlock()
		s.work.Go(func() {
			s.bailiffs <- struct{}{}
			defer func() { <-s.bailiffs }()
			// By what holds when its turn has come.
			if was, fate, why, todo := s.due(p); todo {
				s.carryOut(p, was, fate, why)
			}
			s.mu.Lock()
			again := p.appeal
			p.judging, p.appeal = false, false
			s.mu.Unlock()
			if again {
				s.Changed(vom.Bundle{}) // what came meanwhile must not wait
			}
		})
	}
	// One certificate of several may be gone, or a banned key's login.
	for _, l := range open {
		if fate, why := s.sentence(l.Identity); fate == vom.FateEnd {
			if err := errors.Join(s.learnScope(l).Kill(), l.Process.Kill()); err != nil {
				s.Log.Error("a revoked session's processes", "session", l.ID, "error", err)
			}
			s.end(l, why.Error())
		}
	}
	for _, p := range known { // last: who must go is refused by PAMOpen, too
		s.vouch(p)
	}
}

// due gives a person's fate so far and the present one, and whether there is
// something to do about it.
func (s *Service) due(p *person) (was, fate vom.Fate, why error, todo bool) {
	s.mu.Lock()
	who, was := p.who, p.fate
	s.mu.Unlock()
	fate, why = s.sentence(who)
	return was, fate, why, fate != was || fate == vom.FateFreeze
}

// atOnce is for how many people sentences are carried out at the same time. Each
// takes a thread while it is in a system call, and Go ends a program that has
// 10,000.
const atOnce = 1024

// carryOut brings a person from one fate to another.
func (s *Service) carryOut(p *person, was, fate vom.Fate, why error) {
	if fate == vom.FateEnd {
		s.expel(p, why)
		return
	}
	if was == vom.FateFreeze && fate != vom.FateFreeze {
		if !s.thaw(p) {
			return // it is tried again
		}
	}
	switch fate {
	case vom.FateFreeze:
		s.freeze(p, was, why)
	case vom.FateFinish:
		s.setFate(p, fate)
		s.Log.Warn("access ended; what runs may finish", "account", p.account, "why", why)
		s.record(p, "finish", why.Error())
		s.tell(p, "Your access to this machine has ended: "+why.Error()+".\r\nWhat you run may finish; nothing new can be started, and no new session opened.")
	case "":
		s.setFate(p, "")
		if was != "" {
			s.Log.Info("access came back", "account", p.account)
			s.record(p, "restore", "the membership came back")
			s.tell(p, "Your access to this machine came back. What you run goes on.")
		}
	}
}

func (s *Service) setFate(p *person, fate vom.Fate) {
	p.work.Lock()
	defer p.work.Unlock()
	s.mu.Lock()
	p.fate = fate
	s.mu.Unlock()
	if err := s.save(p); err != nil {
		s.Log.Error("a person's record", "error", err)
	}
}

// freeze stops what a person runs here. It is done again and again: what began
// while it was under way must stop too.
func (s *Service) freeze(p *person, was vom.Fate, why error) {
	if was != vom.FateFreeze {
		s.tell(p, "Your access to this machine has ended: "+why.Error()+".\r\nWhat you run is stopped now. It goes on if your membership comes back in time, else it ends.")
		s.setFate(p, vom.FateFreeze) // before anything is: a new xos-node must know what to thaw
	}
	select {
	case s.revoked <- session.Sentence{Account: p.account, Do: session.Freeze}:
	case <-s.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	how, err := s.Guard.Freeze(ctx, s.ids(p.uid), true)
	if err != nil {
		s.Log.Error("processes of a revoked account do not stop", "account", p.account, "error", err)
	}
	if was != vom.FateFreeze {
		s.Log.Warn("access ended; what runs is frozen", "account", p.account, "why", why, "how", how)
		s.record(p, "freeze", why.Error()+" ["+how+"]")
	}
}

// thaw lets what was frozen go on.
func (s *Service) thaw(p *person) bool {
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	how, err := s.Guard.Freeze(ctx, s.ids(p.uid), false)
	if err != nil {
		s.Log.Error("processes do not go on", "account", p.account, "error", err)
		return false
	}
	select {
	case s.revoked <- session.Sentence{Account: p.account, Do: session.Thaw}:
	case <-s.ctx.Done():
		return false
	}
	s.Log.Info("what was frozen goes on", "account", p.account, "how", how)
	return true
}

// record writes down what was done to an account.
func (s *Service) record(p *person, action, why string) {
	r := audit.Record{Actor: string(s.cfg.Node), Action: action, Subject: p.account.String(), Allowed: true, Reason: why}
	if err := s.Audit.Append(s.ctx, r); err != nil {
		s.Log.Error("the audit log cannot be written", "error", err)
	}
}
