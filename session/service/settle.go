package service

import (
	"context"
	"slices"
	"sync"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// settle makes an account with a durable uid one of this machine's people: its
// groups durable, its names published, its VO's rules in force. It counts one
// use, which the caller must give back by done. shown may be empty.
func (s *Service) settle(ctx context.Context, who vom.Identity, uid uint32, shown []byte) (*person, error) {
	entries, err := s.Accounts.Groups(ctx, who.GroupNames())
	if err != nil {
		return nil, err
	}
	groups := make([]session.Group, len(entries))
	for i, e := range entries {
		groups[i] = session.Group{Name: e.Name, GID: e.ID}
	}
	s.mu.Lock()
	p := s.people[who.Account]
	fresh := p == nil
	if fresh {
		p = &person{account: who.Account, uid: uid}
		s.people[who.Account] = p
	}
	p.uses++
	if p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	delete(s.learned, who.Account)
	s.mu.Unlock()
	defer func() {
		if err != nil {
			s.done(p)
		}
	}()

	// It may have been on its way out of use meanwhile, see close.
	if err = s.Accounts.Use(who.Account, uid); err != nil {
		return nil, err
	}
	p.work.Lock()
	defer p.work.Unlock()
	s.mu.Lock()
	changed := fresh || !slices.Equal(p.groups, groups)
	// The newest certificate decides; an older one that is still valid may
	// be shown after it.
	if !who.Issued.Before(p.who.Issued) {
		p.who, p.groups = who, groups
	}
	// Credentials are got with the certificate that lasts longest. A job's may
	// be newer than it, and shows none.
	if len(shown) > 0 && (len(p.shown) == 0 || !who.NotAfter.Before(p.until)) {
		p.shown, p.until, p.consent = shown, who.NotAfter, signature{}
	}
	p.offer(who, shown)
	s.mu.Unlock()
	if err = s.save(p); err != nil {
		return nil, err
	}
	if changed {
		if err = s.publish(who.Account); err != nil {
			return nil, err
		}
	}
	if err = s.Guard.Login(ctx, who.Account, uid); err != nil {
		return nil, err
	}
	return p, nil
}

// done gives a use back.
func (s *Service) done(p *person) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.uses--; p.uses == 0 {
		s.linger(p)
	}
}

// furnish gets a person what she lacks: the credential, then the home. What
// is still missing afterwards is told in words for her.
func (s *Service) furnish(ctx context.Context, p *person) (missing error) {
	p.work.Lock()
	defer p.work.Unlock()
	if err := s.makeHome(p); err != nil {
		return err
	}
	s.mu.Lock()
	volume, mounted, likely := p.who.Home, p.mounted, p.held == nil && len(p.shown) > 0 && !p.denied
	s.mu.Unlock()
	mount := func() error { return s.Mounter.Mount(ctx, volume, s.mapping(p)) }
	abandon := func() {}
	if likely && volume != "" && mounted == "" && s.Reachable() && s.expectCredential(p.uid) == nil {
		mount, abandon = s.mountAhead(ctx, p, volume)
	}
	_, err := s.obtain(ctx, p)
	s.mu.Lock()
	p.denied = err != nil
	s.mu.Unlock()
	if err != nil {
		abandon()
		// A home that is mounted stays so, and may work for a while.
		return xos.Errorf(xos.KindOf(err), "the grid gave no credential for this session: %w", err)
	}
	if volume == "" {
		return xos.Errorf(xos.NotFound, "you have no home volume").WithHint("ask your VO's administrator")
	}
	if volume == mounted {
		return s.answers(p)
	}
	if err := mount(); err != nil {
		return xos.Errorf(xos.KindOf(err), "your home is not here: %w", err)
	}
	s.mu.Lock()
	p.mounted = volume
	s.mu.Unlock()
	return s.save(p)
}

// attending is for how many people at once something is tried: a home that does
// not come holds up few others' credentials, and a site's thousands do not come
// to the core at once.
const attending = 16

// tend tries again for those in use who lack something.
func (s *Service) tend(ctx context.Context) {
	if !s.tending.TryLock() {
		return // the last round is not over
	}
	defer s.tending.Unlock()
	s.reached()
	s.warn()
	s.mu.Lock()
	var list []*person
	for _, p := range s.people {
		due := p.due(s.Now())
		if p.uses > 0 && (due || p.mounted != p.who.Home || !s.good(p.held)) || p.uses == 0 && due && s.good(p.held) {
			list = append(list, p)
		}
	}
	s.mu.Unlock()
	var round sync.WaitGroup
	for _, p := range list {
		round.Go(func() { s.attend(ctx, p) })
	}
	round.Wait()
}

// attend gets one person what she lacks, or has to renew.
func (s *Service) attend(ctx context.Context, p *person) {
	select {
	case s.attends <- struct{}{}:
		defer func() { <-s.attends }()
	case <-ctx.Done():
		return
	}
	s.mu.Lock()
	here, uses, fate := s.people[p.account] == p, p.uses, p.fate
	s.mu.Unlock()
	switch {
	case !here: // dismissed
	case fate != "": // the core gives her nothing more
	case uses == 0:
		s.renewLeft(ctx, p) // processes of hers may be running still
	default:
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := s.furnish(ctx, p); err != nil {
			s.Log.Debug("still lacking", "account", p.account, "error", err)
		}
	}
}
