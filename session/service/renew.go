package service

import (
	"context"
	"crypto/ed25519"
	"math/rand/v2"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// delegation is how a person's credential came to be and goes on. It is guarded
// by Service.mu.
type delegation struct {
	terms
	// key is for the first credential, before there is one.
	key ed25519.PrivateKey
	// consent is her signature that goes with shown; fresh is a certificate
	// that she showed and that has not been tried yet.
	consent signature
	fresh   []byte
	// renewAt is when the credential is to be renewed; failed counts attempts
	// since the last that did, and the next comes not before notYet.
	renewAt, notYet time.Time
	failed          int
	missing         error // why the last failed
	onward          *onward
	warned          int // how many of the warnings were given
	timer           *time.Timer
}

// terms is what the core said with a credential.
type terms struct {
	// Until is the end of her certificate at the beginning of it all: no
	// renewal outlives it.
	Until time.Time
	Mode  string
	Depth int
	// Job is set where it came with a job: it opens no sessions elsewhere.
	Job bool
	// Refused is why her session has no certificate to go on with.
	Refused string
}

// signature is a consent as it travels, see vom/consent.
type signature struct{ Content, Signature []byte }

// grant is what the core gave.
type grant struct {
	session.Credential
	terms
	// onward and line are a session's key and what the core certified of it;
	// nil: nothing was asked.
	onward *onward
	line   string
}

// evidence is what the core is shown: one of both.
type evidence struct {
	shown   []byte
	consent signature
	held    [][]byte
}

// Times of renewal: after two thirds of a credential's life, a tenth of it
// earlier or later, so that a site's thousands do not come at once.
const (
	renewAfter  = 2. / 3
	renewJitter = 1. / 10
	lastBackoff = time.Minute
)

// schedule plans the renewal of a credential that was got now. One that lasts
// as long as any will is not renewed.
func (d *delegation) schedule(c session.Credential, now time.Time) {
	d.failed, d.notYet, d.missing, d.renewAt = 0, time.Time{}, nil, time.Time{}
	if c.Identity.NotAfter.Add(time.Second).Before(d.terms.Until) {
		life := c.Identity.NotAfter.Sub(c.Identity.Issued)
		at := renewAfter + renewJitter*(2*rand.Float64()-1)
		d.renewAt = c.Identity.Issued.Add(time.Duration(at * float64(life)))
	}
}

// postpone plans the next attempt after one that failed.
func (d *delegation) postpone(err error, every time.Duration, now time.Time) {
	d.failed++
	wait := min(every<<min(d.failed-1, 10), lastBackoff)
	d.notYet, d.missing = now.Add(time.Duration((0.5+rand.Float64())*float64(wait))), err
}

// due reports whether something is to be asked of the core, and may be now.
func (d *delegation) due(now time.Time) bool {
	return (len(d.fresh) > 0 || d.old(now)) && !now.Before(d.notYet)
}

// old reports whether it is time to renew.
func (d *delegation) old(now time.Time) bool {
	return !d.renewAt.IsZero() && !now.Before(d.renewAt)
}

// wake has what is due done when it is: the rounds of tend are too far apart for
// a short life. mu is held.
func (s *Service) wake(p *person) {
	if p.timer != nil {
		p.timer.Stop()
	}
	at := p.renewAt
	if p.notYet.After(at) {
		at = p.notYet
	}
	if at.IsZero() {
		return
	}
	p.timer = time.AfterFunc(max(at.Sub(s.Now()), 0)+time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ctx.Err() == nil {
			s.work.Go(func() { s.attend(s.ctx, p) })
		}
	})
}

// reached lets those try at once for whom the core was away.
func (s *Service) reached() {
	now := s.Reachable()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now && !s.reachable {
		for _, p := range s.people {
			p.notYet = time.Time{}
		}
	}
	s.reachable = now
}

// offer notes a certificate that she has just shown, if it could be the
// beginning of more than what is held. mu is held.
func (p *person) offer(who vom.Identity, shown []byte) {
	if len(shown) == 0 {
		return
	}
	first := who.Serial
	if who.Source != "" {
		first = who.Source
	}
	p.notYet = time.Time{} // somebody waits for it
	if p.held == nil || p.terms.Job || p.held.Identity.Source != first {
		p.fresh = shown
	}
}

// obtain gives a good credential of a person: the one held, renewed if it is
// time, or a new one against the certificate she showed. The caller holds
// p.work.
func (s *Service) obtain(ctx context.Context, p *person) (session.Credential, error) {
	s.mu.Lock()
	held, fresh, shown, consent := p.held, p.fresh, p.shown, p.consent
	now := s.Now()
	old, waits, missing := p.old(now), now.Before(p.notYet), p.missing
	s.mu.Unlock()
	good := s.good(held)
	switch {
	case good && (waits || !old && len(fresh) == 0):
		return *held, nil
	case waits && missing != nil:
		return session.Credential{}, missing
	}
	var last error
	if len(fresh) > 0 {
		by := evidence{shown: fresh}
		if string(fresh) == string(shown) {
			by.consent = consent
		}
		g, err := s.delegate(ctx, p, by)
		if err == nil && (!good || p.better(g.terms)) {
			return s.hold(p, g)
		}
		if last = err; !xos.Is(err, xos.Unavailable) {
			s.mu.Lock()
			p.fresh = nil
			s.mu.Unlock()
		}
		if good && !old { // it goes on as it began
			if xos.Is(last, xos.Unavailable) {
				s.mu.Lock()
				p.postpone(last, s.cfg.Tend, s.Now())
				s.mu.Unlock()
			}
			return *held, nil
		}
	}
	if good {
		g, err := s.delegate(ctx, p, evidence{held: held.Certificate.Certificate})
		if err == nil {
			return s.hold(p, g)
		}
		last = err
	} else if len(shown) > 0 && string(shown) != string(fresh) {
		g, err := s.delegate(ctx, p, evidence{shown: shown, consent: consent})
		if err == nil {
			return s.hold(p, g)
		}
		last = err
	}
	if last == nil {
		last = xos.Errorf(xos.Unavailable, "the credential of %s has run out", p.account).WithHint("log in again")
	}
	s.mu.Lock()
	p.postpone(last, s.cfg.Tend, s.Now())
	s.wake(p)
	s.mu.Unlock()
	if xos.Is(last, xos.Permission) {
		s.dropOnward(p, last)
	}
	if good {
		s.Log.Warn("a credential is not renewed", "account", p.account, "until", held.Identity.NotAfter, "error", last)
		return *held, nil
	}
	return session.Credential{}, last
}

// renewLeft renews for somebody without a session, who may have left something
// running: see leave.
func (s *Service) renewLeft(ctx context.Context, p *person) {
	p.work.Lock()
	defer p.work.Unlock()
	s.mu.Lock()
	still := p.held != nil
	s.mu.Unlock()
	if still {
		if _, err := s.obtain(ctx, p); err != nil {
			s.Log.Debug("not renewed", "account", p.account, "error", err)
		}
	}
}

// better reports whether terms are those of more than what is held.
func (p *person) better(t terms) bool {
	return p.terms.Job && !t.Job || t.Until.Sub(p.terms.Until) >= time.Minute || p.terms.Mode == string(vom.Vouched) && t.Mode == string(vom.Signed)
}

// ends is when a session loses what it needs the grid for.
func (s *Service) ends(l session.Session) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.people[l.Identity.Account]; p != nil && s.good(p.held) && p.terms.Until.After(l.Identity.NotAfter) {
		return p.terms.Until
	}
	return l.Identity.NotAfter
}
