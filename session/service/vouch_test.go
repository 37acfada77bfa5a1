package service_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// vouched gives what sshd is told in advance of an account; "" if nothing.
func (s *stage) vouched(a xos.Account) string {
	text, err := os.ReadFile(filepath.Join(s.run, "principals", s.dir, "home", string(a.VO), string(a.User), "as"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
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

	bobs, _ := s.ca.SSHUser("bob@physics")
	if _, _, err := s.open(alice, bobs); err == nil || s.vouched(alice) != "" {
		t.Fatalf("by another's certificate: %v, %q", err, s.vouched(alice))
	}
	bob := xos.Account{User: "bob", VO: "physics"}
	if _, _, err := s.open(bob, bobs); err != nil || s.vouched(alice) != "" || s.vouched(bob) != "bob@physics\n" {
		t.Fatalf("with another's session: %v, %q", err, s.vouched(alice))
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
	s.eventually("one ends", func() bool { return s.sessions() == 2 })
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
		if _, err := s.PAMAccount(t.Context(), s.login(), wire.PAMRequest{Account: alice, Service: "sshd"}); err != nil {
			t.Errorf("%s, and xos-principals was asked: %v", rule.why, err) // its word is the last before PAMOpen
		}
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
	if _, _, err := s.open(alice, cert); err != nil || s.vouched(alice) != told {
		t.Errorf("back: %v, %q", err, s.vouched(alice))
	}
	s.ca.Change(func(b *vom.Bundle) { b.Bans = []vom.Ban{{Kind: vom.BanUser, Subject: "alice", Reason: "misuse"}} })
	s.Changed(s.ca.Bundle())
	s.eventually("banned", func() bool { return s.vouched(alice) == "" && s.sessions() == 1 })
	if s.vouched(bob) == "" {
		t.Error("bob is not vouched for any more")
	}
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
		"":                       {0o711, 0},
		"/home":                  {0o711, 0},
		"/home/physics":          {0o750, group.ID},
		"/home/physics/alice":    {0o755, 0},
		"/home/physics/alice/as": {0o644, 0},
	} {
		if path != "" {
			path = s.dir + path
		}
		path = filepath.Join(top, path)
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

// TestRootVouchingIsForSSH: sshd is told of those only whom this machine's sshd has
// asked PAM for.
func TestRootVouchingIsForSSH(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	su, err := s.PAMOpen(t.Context(), s.login(), wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: alice, Service: "su"}})
	if err != nil || su.Session == "" {
		t.Fatal(err)
	}
	if err := s.PAMClose(t.Context(), p, reply.Session); err != nil {
		t.Fatal(err)
	}
	s.eventually("only su is left", func() bool { return s.sessions() == 1 })
	if got := s.vouched(alice); got != "" {
		t.Errorf("with a session of su: %q", got)
	}
}

// TestRootVouchingLate: between news and the file's end she is told no where sshd
// can still say so, and a session is not opened.
func TestRootVouchingLate(t *testing.T) {
	s := newStage(t)
	s.tend = time.Hour // nobody sweeps
	s.kill()
	s.start()
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Policy = "forbid (principal, action, resource);" })
	if s.vouched(alice) == "" {
		t.Fatal("it was swept")
	}
	p := s.login()
	r := wire.PAMRequest{Account: alice, Service: "sshd"}
	if _, err := s.PAMAccount(t.Context(), p, r); !xos.Is(err, xos.Permission) {
		t.Errorf("account: %v", err)
	}
	if _, err := s.PAMOpen(t.Context(), p, wire.PAMOpenRequest{PAMRequest: r, AuthInfo: authInfo(cert)}); !xos.Is(err, xos.Permission) {
		t.Errorf("open: %v", err)
	}
	s.eventually("the login process is ended", func() bool { return dead(p) })
}

// TestRootVouchingFails: where sshd cannot be told she logs in all the same, and
// nothing is left behind.
func TestRootVouchingFails(t *testing.T) {
	s := newStage(t)
	top := filepath.Join(s.run, "principals", s.dir)
	if err := os.MkdirAll(filepath.Dir(top), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(top, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "home")); err == nil {
		t.Error("the obstacle did not hold")
	}
	if err := os.Remove(top); err != nil {
		t.Fatal(err)
	}
	s.Changed(s.ca.Bundle())
	s.eventually("the next round tells it", func() bool { return s.vouched(alice) != "" })
}
