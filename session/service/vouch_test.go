package service_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// vouched gives what sshd is told in advance of an account; "" if nothing.
func (s *stage) vouched(a xos.Account) string {
	text, err := os.ReadFile(filepath.Join(s.run, "principals", s.dir, "home", string(a.VO), string(a.User)))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return string(text)
}

// TestRootVouching: sshd knows without a question who has a session, as long as
// the same rules would let her open another.
func TestRootVouching(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	const told = "alice@physics\n"

	if _, _, err := s.open(xos.Account{User: "mallory", VO: "physics"}, cert); err == nil || s.vouched(alice) != "" {
		t.Fatalf("before any session: %v, %q", err, s.vouched(alice))
	}
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.vouched(alice); got != told {
		t.Fatalf("with a session: %q", got)
	}
	second, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PAMClose(t.Context(), p, reply.Session); err != nil {
		t.Fatal(err)
	}
	s.eventually("one ends", func() bool { return s.sessions() == 1 })
	if got := s.vouched(alice); got != told {
		t.Errorf("with the second session: %q", got)
	}

	for _, rule := range []struct {
		why        string
		hold, lift func(*vom.Bundle)
	}{
		{"the VO's policy", func(b *vom.Bundle) { b.VOs[0].Policy = "forbid (principal, action, resource);" }, func(b *vom.Bundle) { b.VOs[0].Policy = "" }},
		{"removed, what runs may finish", func(b *vom.Bundle) {
			b.Revocations = []vom.Revocation{{User: "alice", VO: "physics", Before: time.Now(), Reason: "removed", Fate: vom.FateFinish, Grace: time.Now().Add(time.Hour)}}
		}, func(b *vom.Bundle) { b.Revocations = nil }},
		{"no news", func(b *vom.Bundle) { b.VOs[0].Offline = time.Nanosecond }, func(b *vom.Bundle) { b.VOs[0].Offline = 0 }},
	} {
		s.ca.Change(rule.hold)
		s.Changed(s.ca.Bundle())
		s.eventually(rule.why, func() bool { return s.vouched(alice) == "" })
		s.ca.Change(rule.lift)
		s.Changed(s.ca.Bundle())
		s.eventually("after "+rule.why, func() bool { return s.vouched(alice) == told })
	}

	s.kill()
	if got := s.vouched(alice); got != told {
		t.Errorf("while the service is away: %q", got)
	}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Offline = time.Nanosecond })
	s.start()
	if got := s.vouched(alice); got != "" {
		t.Errorf("by the rules of then: %q", got)
	}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Offline = 0 })
	s.Changed(s.ca.Bundle())
	s.eventually("the successor vouches for who was there", func() bool { return s.vouched(alice) == told })
	kill(second)
	s.eventually("the last session is over", func() bool { return s.vouched(alice) == "" })
}

// TestRootVouchingEndsWithTheCertificate: what nobody could log in by is no reason.
func TestRootVouchingEndsWithTheCertificate(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	s.setClock(2 * time.Hour)
	s.eventually("it has expired", func() bool { return s.vouched(alice) == "" })
}

// TestRootVouchingIsPrivate: only the VO's members, and root, find out who has a
// session.
func TestRootVouchingIsPrivate(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	group, _ := s.accounts.Group("physics")
	top := filepath.Join(s.run, "principals")
	for path, want := range map[string]struct {
		mode os.FileMode
		gid  uint32
	}{
		top:                               {0o711, 0},
		filepath.Join(top, s.dir):         {0o711, 0},
		filepath.Join(top, s.dir, "home"): {0o711, 0},
		filepath.Join(top, s.dir, "home/physics"):       {0o750, group.ID},
		filepath.Join(top, s.dir, "home/physics/alice"): {0o644, 0},
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		is := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != want.mode || is.Uid != 0 || is.Gid != want.gid {
			t.Errorf("%s is %v of %d:%d", path, info.Mode(), is.Uid, is.Gid)
		}
	}
}
