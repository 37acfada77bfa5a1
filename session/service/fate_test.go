package service_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// drain takes what jobs are told, so that nobody waits for it.
func (s *stage) drain(t *testing.T) func() (last session.Doing) {
	told := make(chan session.Doing, 1000)
	ctx, revoked := t.Context(), s.Revoked() // of this service, not of its successor
	go func() {
		for {
			select {
			case v := <-revoked:
				told <- v.Do
			case <-ctx.Done():
				return
			}
		}
	}()
	var last session.Doing
	return func() session.Doing {
		for {
			select {
			case last = <-told:
			default:
				return last
			}
		}
	}
}

func (s *stage) remove(fate vom.Fate, grace time.Duration) {
	s.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Reason: "removed from physics by root", Fate: fate, Grace: time.Now().Add(grace)})
	s.Changed(s.ca.Bundle())
}

func (s *stage) readmit() {
	s.ca.Change(func(b *vom.Bundle) { b.Revocations = nil })
	s.Changed(s.ca.Bundle())
}

func TestRootFrozenSessions(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	bob, _ := s.ca.SSHUser("bob@physics")
	if _, _, err := s.open(xos.Account{User: "bob", VO: "physics"}, bob); err != nil {
		t.Fatal(err)
	}
	uid := must(s.GetPwNam(ctx, root, alice)).UID
	told := s.drain(t)
	s.remove(vom.FateFreeze, time.Hour)
	s.eventually("her processes are frozen", func() bool { return s.guard.isFrozen(uid) })
	s.eventually("her jobs are told to stop", func() bool { return told() == session.Freeze })
	if dead(p) || s.sessions() != 2 || s.guard.hasKilled(uid) || !s.mounts.has("home-physics-alice") {
		t.Error("what is frozen was ended")
	}
	if _, _, err := s.open(alice, cert); !xos.Is(err, xos.Permission) {
		t.Errorf("her next login: %v", err)
	}
	// One who is back by news that are not here yet must not land in what is frozen.
	fresh, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	if _, _, err := s.open(alice, fresh); !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("a login into what is frozen: %v", err)
	}
	// Another xos-node keeps it so, and thaws it in the end.
	s.kill()
	s.start()
	told = s.drain(t)
	s.eventually("a new service freezes again", func() bool { return told() == session.Freeze && s.guard.isFrozen(uid) })
	s.readmit()
	s.eventually("all goes on", func() bool { return !s.guard.isFrozen(uid) && told() == session.Thaw })
	s.eventually("and she may log in", func() bool { _, _, err := s.open(alice, cert); return err == nil })
	if dead(p) {
		t.Error("her session did not survive")
	}

	s.remove(vom.FateFreeze, time.Hour)
	s.eventually("frozen again", func() bool { return s.guard.isFrozen(uid) })
	s.setClock(61 * time.Minute)
	s.Changed(s.ca.Bundle())
	s.eventually("her time is over: all is ended", func() bool { return dead(p) && s.guard.hasKilled(uid) && told() == session.End })
	s.eventually("nothing stays frozen for a later login", func() bool { return !s.guard.isFrozen(uid) })
	s.eventually("bob stays", func() bool { return s.sessions() == 1 })
}

// TestRootBannedWhileFreezing: what is decided while a decision is carried out
// does not wait for the next look around.
func TestRootBannedWhileFreezing(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.tend = time.Hour
	s.start()
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	told := s.drain(t)
	busy := make(chan struct{})
	s.guard.mu.Lock()
	s.guard.busy = busy
	s.guard.mu.Unlock()
	s.remove(vom.FateFreeze, time.Hour)
	s.eventually("she is being frozen", func() bool { return told() == session.Freeze })
	s.ca.Change(func(b *vom.Bundle) { b.Bans = []vom.Ban{{Kind: vom.BanUser, Subject: "alice"}} })
	s.Changed(s.ca.Bundle())
	s.eventually("the login itself is ended at once", func() bool { return dead(p) })
	close(busy)
	s.eventually("and then the rest", func() bool { return told() == session.End })
}

func TestRootFinishingSessions(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := must(s.GetPwNam(ctx, root, alice)).UID
	told := s.drain(t)
	s.remove(vom.FateFinish, time.Hour)
	finishing := func() bool {
		log, err := s.audit.Query(auditOf("finish"))
		return err == nil && len(log) == 1
	}
	s.eventually("it is on record", finishing)
	if dead(p) || s.sessions() != 1 || s.guard.isFrozen(uid) || told() != "" {
		t.Error("what may finish was disturbed")
	}
	if _, err := s.Credential(ctx, alice); err != nil {
		t.Errorf("her job has lost its credential: %v", err)
	}
	if _, _, err := s.open(alice, cert); !xos.Is(err, xos.Permission) {
		t.Errorf("a new session: %v", err)
	}
	held := must(s.Credential(ctx, alice))
	if _, _, err := s.Admit(ctx, held.Identity, held); !xos.Is(err, xos.Permission) {
		t.Errorf("a new job: %v", err)
	}
	s.setClock(61 * time.Minute)
	s.Changed(s.ca.Bundle())
	s.eventually("her time is over", func() bool { return dead(p) && s.guard.hasKilled(uid) && told() == session.End })
}

func TestRootBans(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	told := s.drain(t)
	for _, ban := range []vom.Ban{{Kind: vom.BanUser, Subject: "alice", Reason: "laptop stolen"}, {Kind: vom.BanKey, Subject: credtestKey(cert)}} {
		p, _, err := s.open(alice, cert)
		if err != nil {
			t.Fatal(err)
		}
		s.ca.Change(func(b *vom.Bundle) { b.Bans = []vom.Ban{ban} })
		s.Changed(s.ca.Bundle())
		s.eventually("her session is ended", func() bool { return dead(p) && told() == session.End })
		_, _, err = s.open(alice, cert)
		if !xos.Is(err, xos.Permission) || vom.RuleOf(err) != vom.RuleBan {
			t.Errorf("banned by %s: %v", ban.Kind, err)
		}
		s.ca.Change(func(b *vom.Bundle) { b.Bans = nil })
		s.Changed(s.ca.Bundle())
	}
	if _, _, err := s.open(alice, cert); err != nil {
		t.Errorf("after the bans: %v", err)
	}
	if _, err := s.Credential(ctx, alice); err != nil {
		t.Errorf("her credential: %v", err)
	}
}

func TestRootOffline(t *testing.T) {
	s := newStage(t)
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Offline = time.Hour })
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	s.ca.Change(func(b *vom.Bundle) { b.Issued = time.Now().Add(-61 * time.Minute) })
	s.Changed(s.ca.Bundle())
	_, _, err = s.open(alice, cert)
	if !xos.Is(err, xos.Unavailable) || vom.RuleOf(err) != vom.RuleNews {
		t.Errorf("without news: %v", err)
	}
	if dead(p) {
		t.Error("a running session was ended for lack of news")
	}
}

func auditOf(action string) audit.Filter { return audit.Filter{Action: action} }

func credtestKey(c *ssh.Certificate) string { return ssh.FingerprintSHA256(c.Key) }
