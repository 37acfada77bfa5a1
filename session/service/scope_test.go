package service_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// scope is a control group as logind makes it.
type scope struct {
	t   *testing.T
	dir string
}

func newScope(t *testing.T, uid uint32, name string) scope {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		top := filepath.Join(root, fmt.Sprintf("xos-scope-%d-%s", os.Getpid(), name))
		slice := filepath.Join(top, fmt.Sprintf("user-%d.slice", uid))
		sc := scope{t, filepath.Join(slice, "session-"+name+".scope")}
		if err := os.MkdirAll(sc.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			os.WriteFile(filepath.Join(sc.dir, "cgroup.kill"), []byte("1"), 0)
			for _, dir := range []string{sc.dir, slice, top} {
				for end := time.Now().Add(5 * time.Second); errors.Is(os.Remove(dir), unix.EBUSY) && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			}
		})
		return sc
	}
	need.Missing(t, "cgroup version 2", "none is mounted")
	return scope{}
}

func (sc scope) add(pid int) {
	sc.t.Helper()
	if err := os.WriteFile(filepath.Join(sc.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		sc.t.Fatal(err)
	}
}

// leave starts something in the scope that outlasts its login.
func (sc scope) leave(uid uint32) (end func()) {
	sc.t.Helper()
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		sc.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	end = func() { cmd.Process.Kill(); <-gone }
	sc.t.Cleanup(end)
	sc.add(cmd.Process.Pid)
	return end
}

// stays sees that a number of sessions does not change by itself.
func (s *stage) stays(n int, why string) {
	s.Helper()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got := s.sessions(); got != n {
			s.Fatalf("%s: %d sessions, not %d", why, got, n)
		}
	}
}

// A session lasts as long as its last process, whether close_session comes or
// not, and over restarts: what she left running works on.
func TestRootLastProcess(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	sc := newScope(t, uid, "t1")
	sc.add(p.PID)
	end := sc.leave(uid)
	if err := s.PAMClose(t.Context(), p, reply.Session); err != nil {
		t.Fatal(err)
	}
	s.stays(1, "closed while something of it runs")
	kill(p)
	s.eventually("the login process is gone", func() bool { return dead(p) })
	s.stays(1, "its login process ended")
	s.kill()
	s.start()
	s.stays(1, "after a restart")
	if _, err := s.Credential(t.Context(), alice); err != nil || s.status(uid).SshNotAfter == nil {
		t.Errorf("what she left lost the grid: %v", err)
	}
	end()
	s.eventually("it ends with the last process", func() bool { return s.sessions() == 0 })
}

// Without a word from PAM: the scope is known before.
func TestRootLastProcessUnannounced(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	sc := newScope(t, uid, "t2")
	sc.add(p.PID)
	end := sc.leave(uid)
	record := filepath.Join(s.run, "sessions", string(reply.Session)+".json")
	s.eventually("the session's scope is on record", func() bool {
		data, err := os.ReadFile(record)
		return err == nil && strings.Contains(string(data), "session-t2.scope")
	})
	// A su within it is no login of its own: it ends with its process.
	su := s.login()
	joined, err := s.PAMOpen(t.Context(), su, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: alice, Service: "su"}})
	if err != nil {
		t.Fatal(err)
	}
	sc.add(su.PID)
	if err := s.PAMClose(t.Context(), su, joined.Session); err != nil {
		t.Fatal(err)
	}
	s.stays(1, "after her su")
	kill(su)
	kill(p)
	s.eventually("the login process is gone", func() bool { return dead(p) })
	s.stays(1, "its login process ended")
	end()
	s.eventually("it ends with the last process", func() bool { return s.sessions() == 0 })
}

// A scope that is not of a login of hers binds nothing; and what a revoked
// certificate's session left ends with it, not what another's did.
func TestRootScopeBelongsToLogin(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now().Add(-time.Minute), time.Hour))
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	roots := newScope(t, 0, "t3")
	roots.add(p.PID)
	roots.leave(0)
	if err := s.PAMClose(t.Context(), p, reply.Session); err != nil {
		t.Fatal(err)
	}
	if n := s.sessions(); n != 0 {
		t.Errorf("%d sessions are left in root's scope", n)
	}

	first, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	newer, _ := s.ca.SSHUser("alice@physics")
	second, _, err := s.open(alice, newer)
	if err != nil {
		t.Fatal(err)
	}
	one, two := newScope(t, uid, "t4"), newScope(t, uid, "t5")
	one.add(first.PID)
	two.add(second.PID)
	one.leave(uid)
	two.leave(uid)
	s.ca.Revoke(vom.Revocation{Serial: strconv.FormatUint(cert.Serial, 10), Before: time.Now().Add(time.Second), Reason: "logged out"})
	s.Changed(s.ca.Bundle())
	s.eventually("the revoked certificate's session ends", func() bool { return s.sessions() == 1 })
	s.eventually("with all of it", func() bool { return one.empty() })
	if two.empty() {
		t.Error("the other session was ended, too")
	}
}

func (sc scope) empty() bool {
	data, err := os.ReadFile(filepath.Join(sc.dir, "cgroup.procs"))
	return err == nil && len(data) == 0
}
