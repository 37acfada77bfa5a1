package service

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/vom"
)

// How an id leaves this machine. An account whose access ended, or that was not
// used for Config.Idle, goes from active to closing (durable), is rid of its
// processes, home, credential and record, and is quarantined (durable). When it
// has rested, a sweep searches the machine; its outcome goes into the audit
// log (durable), and then, only if nothing was found, the id is freed (durable),
// and the guard forgets it.
// A use at any point makes it active again, with the same id. Whatever is
// interrupted is begun anew from the last durable state.

// retire takes out of use what is out of use, a step each.
func (s *Service) retire(ctx context.Context) {
	for _, e := range s.Accounts.Users() {
		if ctx.Err() != nil {
			return
		}
		a, err := xos.ParseAccount(e.Name)
		if err != nil || e.State == account.Quarantined {
			continue
		}
		if s.used(a) {
			err = s.Accounts.Use(a, e.ID)
		} else if e.State == account.Closing || s.over(ctx, a, e) {
			err = s.close(ctx, a, e)
		}
		if err != nil && !xos.Is(err, xos.Conflict) && ctx.Err() == nil {
			s.Log.Warn("a uid is not taken out of use", "account", a, "uid", e.ID, "error", err)
		}
	}
}

// used reports whether an account has a session or a job here.
func (s *Service) used(a xos.Account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.people[a]
	return p != nil && p.uses > 0
}

// over reports whether an account's time here is over: its access ended, or it
// was not used for long and runs nothing.
func (s *Service) over(ctx context.Context, a xos.Account, e account.Entry) bool {
	if s.Bundle().Issued.IsZero() {
		return false // no news yet: nobody's access has ended
	}
	// Where there is no record of her certificate, since a boot say: one that
	// was good at her last use was issued before that.
	who := vom.Identity{Attributes: xos.Attributes{Account: a}, Issued: e.Seen}
	s.mu.Lock()
	p := s.people[a]
	if p != nil {
		who = p.who
	}
	s.mu.Unlock()
	if who.User == "" {
		return true // expelled
	}
	switch fate, _ := s.sentence(who); fate {
	case vom.FateEnd:
		// Whoever is known here is expelled first: jobs are told, what was
		// frozen is thawed, and it is on record.
		return p == nil
	case vom.FateFreeze:
		return false // what was left running, too
	}
	if s.cfg.Idle <= 0 || s.Now().Sub(e.Seen) < s.cfg.Idle {
		return false
	}
	runs, err := s.runs(ctx, e.ID)
	return err == nil && !runs
}

// close ends what an account still has here and quarantines its id.
func (s *Service) close(ctx context.Context, a xos.Account, e account.Entry) error {
	if e.State == account.Active {
		if err := s.Accounts.Move(a, account.Active, account.Closing); err != nil {
			return err
		}
	}
	// A login counts itself as a use and then makes the id active: so either
	// it is seen here, or it comes after Move and undoes it.
	if s.used(a) {
		return s.Accounts.Use(a, e.ID)
	}
	killCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.kill(killCtx, e.ID); err != nil {
		return err
	}
	if p := s.find(a); p != nil {
		if err := s.dismiss(p); err != nil {
			return err
		}
	}
	if err := s.Accounts.Move(a, account.Closing, account.Quarantined); err != nil {
		return err
	}
	s.Log.Info("uid quarantined", "account", a, "uid", e.ID)
	return nil
}

// dismiss forgets a person who is not here any more.
func (s *Service) dismiss(p *person) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := s.unmount(p); err != nil {
		return err
	}
	s.forget(p)
	// Who does not find the person must not find the record either, and it must
	// not be taken from one who comes back at once: so both go under one lock. What
	// sshd is told of one who comes back waits for the other.
	s.vouching.Lock()
	defer s.vouching.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.uses > 0 {
		return xos.Errorf(xos.Conflict, "%s has come back", p.account)
	}
	if err := os.Remove(s.personPath(p.uid)); err != nil && !os.IsNotExist(err) {
		return xos.Errorf(xos.Internal, "removing a person's record: %w", err)
	}
	if p.idle != nil {
		p.idle.Stop()
	}
	delete(s.people, p.account)
	s.unannounce(p.account)
	return nil
}

// unlabel has the guard forget the uids that are free: their figures are in the
// record by which they were freed. What a kill has left labelled is found again,
// by the next round or the next xos-node. A uid that has a process after all keeps
// its label: without one it would be a stranger's.
func (s *Service) unlabel(ctx context.Context) {
	labelled, err := s.Guard.Labelled(ctx)
	if err != nil {
		s.Log.Warn("which uids are labelled", "error", err)
		return
	}
	free := map[uint32]account.Entry{}
	for _, e := range s.Accounts.Spent() {
		free[e.ID] = e
	}
	labelled = slices.DeleteFunc(labelled, func(uid uint32) bool { return free[uid].ID == 0 })
	if len(labelled) == 0 {
		return
	}
	running, err := s.looks.Take(ctx)
	if err != nil {
		s.Log.Warn("uids stay labelled", "error", err)
		return
	}
	for _, uid := range labelled {
		if pids := running.Of(idsOf(free[uid])); len(pids) > 0 {
			s.Log.Error("a uid that is free has processes", "uid", uid, "pids", pids)
			continue
		}
		if err := s.Guard.Forget(ctx, uid, func() bool { return s.Accounts.IsFree(uid) }); err != nil && !xos.Is(err, xos.Conflict) {
			s.Log.Warn("a uid stays labelled", "uid", uid, "error", err)
		}
	}
}

// lastFigures puts in words what a uid has used outside of jobs.
func (s *Service) lastFigures(ctx context.Context, uid uint32) (string, error) {
	u, err := s.Guard.LoginsUsed(ctx, uid)
	if xos.Is(err, xos.NotFound) {
		return "", nil
	}
	return fmt.Sprintf("received %d, sent %d bytes; executed %d; opened %d; refused %d", u.NetIn, u.NetOut, u.Execs, u.Opens, u.Refused), err
}

// rests reports whether an id is in that quarantine still.
func (s *Service) rests(e account.Entry) bool {
	a, ok := s.Accounts.UserOf(e.ID)
	if !ok {
		return false
	}
	now, ok := s.Accounts.User(a)
	return ok && now.ID == e.ID && now.State == account.Quarantined && now.Since.Equal(e.Since)
}

// resting gives the quarantined ids as those to search for.
func (s *Service) resting() (out []account.Entry, due bool) {
	for _, e := range s.Accounts.Users() {
		if e.State != account.Quarantined {
			continue
		}
		out = append(out, e)
		if at, ok := s.Accounts.Due(e); ok && !s.Now().Before(at) {
			due = true
		}
	}
	return out, due
}

func subjects(entries []account.Entry) []residue.Subject {
	out := make([]residue.Subject, len(entries))
	for i, e := range entries {
		out[i] = residue.Subject{ID: e.ID, Name: e.Name, Sub: e.Sub}
	}
	return out
}

// recycle retires and sweeps, from time to time, until ctx ends.
func (s *Service) recycle(ctx context.Context) {
	for {
		s.unlabel(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.cfg.Retire):
		}
		s.retire(ctx)
		// Those who were searched for in vain wait for a day, or for root.
		if _, due := s.resting(); due && s.Now().Sub(s.sweptAt()) >= 24*time.Hour {
			s.beginSweep()
		}
	}
}
