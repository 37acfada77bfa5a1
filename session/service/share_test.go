package service_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// Sessions of an account share one home and one credential, which stay until
// the last of them has gone without a word, and until what she left running is
// over: for that they are renewed, too.
func TestRootSessionsShare(t *testing.T) {
	s := newStage(t)
	s.core.set(func() { s.core.life = 2 * time.Second })
	cert, _ := s.ca.SSHUser("alice@physics")
	first, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now().Add(-time.Second), time.Hour))
	second, _, err := s.open(alice, again)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	if n := s.mounts.count("home-physics-alice"); n != 1 {
		t.Errorf("her home was mounted %d times", n)
	}
	left := exec.Command("sleep", "300")
	left.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- left.Wait() }()
	t.Cleanup(func() { left.Process.Kill() })

	kill(first)
	s.eventually("one session is left", func() bool { return s.sessions() == 1 })
	if _, err := s.Credential(t.Context(), alice); err != nil || !s.mounts.has("home-physics-alice") {
		t.Errorf("the first took from the second: %v", err)
	}
	kill(second)
	s.eventually("no session is left", func() bool { return s.sessions() == 0 })
	pem := filepath.Join(s.run, "cred", strconv.Itoa(int(uid)), "cert.pem")
	old, err := os.ReadFile(pem)
	if err != nil {
		t.Fatal(err)
	}
	s.within(15*time.Second, "it is renewed for what she left running", func() bool {
		now, err := os.ReadFile(pem)
		return err == nil && string(now) != string(old)
	})
	if !s.mounts.has("home-physics-alice") {
		t.Error("her home is gone under a process")
	}
	if _, err := s.Credential(t.Context(), alice); !xos.Is(err, xos.Permission) {
		t.Errorf("asked for without a session: %v", err)
	}
	left.Process.Kill()
	<-over
	s.eventually("with the last process all is gone", func() bool {
		_, err := os.Stat(pem)
		return os.IsNotExist(err) && !s.mounts.has("home-physics-alice")
	})
}
