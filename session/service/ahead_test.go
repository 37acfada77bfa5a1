package service_test

import (
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// A cold home is being mounted while the core is asked for its credential, and
// never before the login is on record.
func TestRootMountAhead(t *testing.T) {
	s := newStage(t)
	begun, recorded := make(chan struct{}), false
	s.mounts.begins = func(xos.VolumeID) {
		log, err := s.audit.Query(auditOf("login"))
		recorded = err == nil && len(log) == 1
		close(begun)
	}
	s.core.set(func() {
		s.core.refuse = func(*xosv1.DelegateRequest) error {
			select {
			case <-begun:
				return nil
			case <-time.After(3 * time.Second):
				return xos.Errorf(xos.Unavailable, "no mount was begun")
			}
		}
	})
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, reply, err := s.open(alice, cert); err != nil || reply.Message != "" {
		t.Fatalf("%v, told %q", err, reply.Message)
	}
	if !recorded || !s.mounts.has("home-physics-alice") {
		t.Errorf("recorded before: %v, mounted: %v", recorded, s.mounts.has("home-physics-alice"))
	}
}

// Without a credential a mount that was begun is given up, and none is begun for
// her until there was a credential again.
func TestRootMountAheadInVain(t *testing.T) {
	s := newStage(t)
	s.tend = time.Hour
	s.kill()
	s.start()
	var begun atomic.Int32
	s.mounts.begins = func(xos.VolumeID) { begun.Add(1) }
	refuse := func(err error) {
		s.core.set(func() { s.core.refuse = func(*xosv1.DelegateRequest) error { return err } })
	}
	refuse(xos.Errorf(xos.Permission, "VO physics forbids delegate"))
	cert, _ := s.ca.SSHUser("alice@physics")
	for range 3 {
		if _, reply, err := s.open(alice, cert); err != nil || reply.Message == "" {
			t.Fatalf("%v, told %q", err, reply.Message)
		}
	}
	if n := begun.Load(); n != 1 || s.mounts.has("home-physics-alice") || s.mounts.given("home-physics-alice") != 1 {
		t.Errorf("begun %d times, given up %d times, mounted %v", n, s.mounts.given("home-physics-alice"), s.mounts.has("home-physics-alice"))
	}
	refuse(nil)
	if _, reply, err := s.open(alice, cert); err != nil || reply.Message != "" || !s.mounts.has("home-physics-alice") {
		t.Errorf("%v, told %q", err, reply.Message)
	}
}

// What is left of a credential that nobody holds is not what a mount begins with.
func TestRootMountAheadOfAnOldCredential(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.run, "cred", strconv.Itoa(int(s.uid(alice))))
	kill(p)
	s.eventually("all is put away", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := true
	s.mounts.begins = func(xos.VolumeID) { _, err := os.Stat(filepath.Join(dir, "cert.pem")); old = err == nil }
	wait := make(chan struct{})
	s.core.set(func() {
		s.core.refuse = func(*xosv1.DelegateRequest) error { <-wait; return nil }
	})
	time.AfterFunc(200*time.Millisecond, func() { close(wait) })
	if _, reply, err := s.open(alice, cert); err != nil || reply.Message != "" {
		t.Fatalf("%v, told %q", err, reply.Message)
	}
	if old {
		t.Error("a mount began with what was left")
	}
}
