package service_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// within waits longer than eventually: for credentials' lives.
func (s *stage) within(d time.Duration, what string, f func() bool) {
	s.Helper()
	for deadline := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
	}
}

func (s *stage) uid(a xos.Account) uint32 {
	s.Helper()
	pw, err := s.GetPwNam(context.Background(), root, a)
	if err != nil {
		s.Fatal(err)
	}
	return pw.UID
}

func (s *stage) status(uid uint32) *xosv1.DelegationStatusResponse {
	s.Helper()
	resp, err := s.Status(as(uid), connect.NewRequest(&xosv1.DelegationStatusRequest{}))
	if err != nil {
		s.Fatal(err)
	}
	return resp.Msg
}

// mustOpen opens a session and gives its uid.
func (s *stage) mustOpen(a xos.Account, c *ssh.Certificate) uint32 {
	s.Helper()
	if _, _, err := s.open(a, c); err != nil {
		s.Fatal(err)
	}
	return s.uid(a)
}

func count(asks []string, kind string) (n int) {
	for _, a := range asks {
		if a == kind {
			n++
		}
	}
	return n
}

// A session's credential is renewed before it ends, on its key, for as long as
// the session lives, over a restart, and with no moment without one; the
// certificate to go on with changes with it.
func TestRootRenewal(t *testing.T) {
	s := newStage(t)
	s.core.set(func() { s.core.life = 3 * time.Second })
	cert, _ := s.ca.SSHUser("alice@physics")
	uid := s.mustOpen(alice, cert)
	dir := filepath.Join(s.run, "cred", strconv.Itoa(int(uid)))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first, key, onward := read("cert.pem"), read("key.pem"), s.status(uid).SshNotAfter.AsTime()
	use := func() {
		t.Helper()
		c, err := s.Credential(t.Context(), alice)
		if err != nil || !time.Now().Before(c.Identity.NotAfter) {
			t.Fatalf("%v until %v", err, c.Identity.NotAfter)
		}
	}
	s.within(15*time.Second, "two renewals", func() bool { use(); return count(s.core.delegated(), "held") >= 2 })
	if n := count(s.core.delegated(), "certificate"); n != 1 {
		t.Errorf("the certificate was shown %d times", n)
	}
	if read("cert.pem") == first || read("key.pem") != key {
		t.Error("what the mount reads is not renewed, or its key is another")
	}
	s.eventually("the certificate to go on with is renewed", func() bool { return s.status(uid).SshNotAfter.AsTime().After(onward) })
	s.kill()
	s.start()
	use()
	n := len(s.core.delegated())
	s.within(15*time.Second, "a renewal by the successor", func() bool { use(); return len(s.core.delegated()) > n })
	if asks := s.core.delegated(); slices.Contains(asks[n:], "certificate") {
		t.Errorf("the successor asked by %v", asks[n:])
	}
}

// While the core is away nobody hammers it, and what is held serves to its end.
func TestRootRenewalWithoutCore(t *testing.T) {
	s := newStage(t)
	s.core.set(func() { s.core.life = 3 * time.Second })
	cert, _ := s.ca.SSHUser("alice@physics")
	s.mustOpen(alice, cert)
	s.core.setDown(true)
	s.within(15*time.Second, "it runs out", func() bool { _, err := s.Credential(t.Context(), alice); return err != nil })
	// 50 ms, doubled each time: without backing off there would be sixty.
	if n := len(s.core.delegated()); n > 15 {
		t.Errorf("the core was asked %d times in three seconds", n)
	}
	s.core.setDown(false)
	s.within(15*time.Second, "it is there again", func() bool { _, err := s.Credential(t.Context(), alice); return err == nil })
}

// When the VO does not agree any more, she goes on nowhere at once, and the
// credential ends.
func TestRootVOAgreesNoMore(t *testing.T) {
	s := newStage(t)
	s.core.set(func() { s.core.life = 3 * time.Second })
	cert, _ := s.ca.SSHUser("alice@physics")
	uid := s.mustOpen(alice, cert)
	s.core.set(func() { s.core.noSSO = "VO physics forbids sso" })
	s.within(15*time.Second, "the session's certificate is gone", func() bool { return s.status(uid).SshNotAfter == nil })
	if st := s.status(uid); !st.Held || !strings.Contains(st.SshMissing, "forbids sso") {
		t.Errorf("status %v", st)
	}
	s.core.set(func() {
		s.core.refuse = func(*xosv1.DelegateRequest) error { return xos.Errorf(xos.Permission, "VO physics forbids delegate") }
	})
	s.within(15*time.Second, "the credential ends", func() bool { _, err := s.Credential(t.Context(), alice); return err != nil })
	if st := s.status(uid); st.Held || !strings.Contains(st.Missing, "forbids delegate") {
		t.Errorf("status %v", st)
	}
}

// A login with a newer certificate extends what the running sessions have; one
// that would end sooner takes nothing from them.
func TestRootNewLoginExtends(t *testing.T) {
	s := newStage(t)
	short, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now().Add(-time.Second), 10*time.Minute))
	long, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	uid := s.mustOpen(alice, short)
	if left := time.Until(s.status(uid).Until.AsTime()); left > 11*time.Minute {
		t.Fatalf("it lasts %v", left)
	}
	s.mustOpen(alice, long)
	if left := time.Until(s.status(uid).Until.AsTime()); left < 50*time.Minute {
		t.Errorf("after a newer login it lasts %v", left)
	}
	who, err := s.WhoAmI(as(uid), connect.NewRequest(&xosv1.WhoAmIRequest{}))
	if err != nil || time.Until(who.Msg.NotAfter.AsTime()) < 50*time.Minute {
		t.Errorf("she is told %v %v", who, err)
	}
	s.mustOpen(alice, short)
	if left := time.Until(s.status(uid).Until.AsTime()); left < 50*time.Minute {
		t.Errorf("after an older login it lasts %v", left)
	}
	// A job's credential neither, unless it lasts longer.
	for _, tt := range []struct {
		until time.Duration
		taken bool
	}{{30 * time.Minute, false}, {3 * time.Hour, true}} {
		c := s.ca.Delegated("alice@physics", "node1", credtest.Issued(time.Now(), 20*time.Minute))
		id, err := credential.FromX509(c.Leaf)
		if err != nil {
			t.Fatal(err)
		}
		_, release, err := s.Admit(t.Context(), id, session.Credential{Certificate: c, Identity: id, Until: time.Now().Add(tt.until)})
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Until(s.status(uid).Until.AsTime()) > 2*time.Hour; got != tt.taken {
			t.Errorf("of a job until %v: taken %v", tt.until, got)
		}
		release()
	}
}

// socket gives a session's agent, as a process of root that has become the user
// would reach it.
func (s *stage) socket(uid uint32) string {
	s.Helper()
	st := s.status(uid)
	if st.Agent == "" {
		s.Fatal("no agent")
	}
	return st.Agent
}

// TestRootAgent: the session's environment names an agent, which is there for
// as long as sessions are, is taken over by a successor, and has a certificate
// for this machine's session.
func TestRootAgent(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	path := s.socket(uid)
	if !slices.Contains(reply.Env, "XOS_SSH_AGENT="+path) {
		t.Errorf("environment %q, agent %s", reply.Env, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Uid != uid || st.Mode != unix.S_IFSOCK|0o600 {
		t.Errorf("%s: uid %d mode %o %v", path, st.Uid, st.Mode, err)
	}
	if err := unix.Stat(filepath.Dir(path), &st); err != nil || st.Uid != 0 || st.Gid == 0 || st.Mode != unix.S_IFDIR|0o710 {
		t.Errorf("%s: uid %d gid %d mode %o %v", filepath.Dir(path), st.Uid, st.Gid, st.Mode, err)
	}
	if st := s.status(uid); !st.Held || st.Mode != "vouched" || st.SshNotAfter == nil {
		t.Errorf("status %v", st)
	}
	if _, err := s.Status(as(uid+1), connect.NewRequest(&xosv1.DelegationStatusRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("another's: %v", err)
	}
	// This process is root's, and the agent answers its user alone.
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := agent.NewClient(c).List(); err == nil {
		t.Errorf("root sees %v", keys)
	}
	c.Close()
	s.kill()
	s.start()
	if again := s.socket(uid); again != path {
		t.Errorf("the successor serves %s", again)
	}
	if _, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	}
	s.PAMClose(t.Context(), p, reply.Session)
	s.eventually("the agent is gone", func() bool { _, err := os.Stat(path); return os.IsNotExist(err) })
}

// A login with the certificate of a session elsewhere is one, and its end is
// that of the login it comes from.
func TestRootSessionFromElsewhere(t *testing.T) {
	s := newStage(t)
	from := []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	cert, _ := s.ca.SSHSession("alice@physics", "node2", from, credtest.Source("77"), credtest.Issued(time.Now(), 10*time.Minute))
	uid := s.mustOpen(alice, cert)
	if who, err := s.Of(t.Context(), uid); err != nil || who.Identity.Node != "node2" {
		t.Errorf("%+v %v", who, err)
	}
	s.ca.Revoke(vom.Revocation{Serial: "77", Before: time.Now().Add(time.Second), Reason: "logged out"})
	s.Changed(s.ca.Bundle())
	s.eventually("the session ends with the login's certificate", func() bool { return s.sessions() == 0 })
	gone, _ := s.ca.SSHSession("alice@physics", "node2", from, credtest.Source("78"))
	s.ca.Revoke(vom.Revocation{Node: "node2", Before: time.Now().Add(time.Second), Reason: "removed"})
	if _, _, err := s.open(alice, gone); !xos.Is(err, xos.Permission) {
		t.Errorf("from a machine that was removed: %v", err)
	}
}

// What a predecessor left of sessions that ended while none was there to see it
// goes, too: a socket of hers would be found by every sweep, and the uid never freed.
func TestRootAgentLeftBehind(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	path := s.socket(s.uid(alice))
	s.kill()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("it is gone with the service already: %v", err)
	}
	// Killed between the session's end and the account's.
	records, err := filepath.Glob(filepath.Join(s.run, "sessions", "*.json"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := os.Remove(records[0]); err != nil {
		t.Fatal(err)
	}
	kill(p)
	s.start()
	s.eventually("the agent is gone", func() bool { _, err := os.Stat(path); return os.IsNotExist(err) })
}

// One whose home does not come holds up nobody else's renewal.
func TestRootRenewalBesideAHangingHome(t *testing.T) {
	s := newStage(t)
	s.core.set(func() { s.core.life = 3 * time.Second })
	bob := xos.Account{User: "bob", VO: "physics"}
	var tries atomic.Int32
	s.mounts.trouble = func(ctx context.Context, v xos.VolumeID) error {
		if v == "home-physics-bob" && tries.Add(1) > 1 { // his login itself goes on
			<-ctx.Done()
		}
		return xos.Errorf(xos.Unavailable, "no metadata service")
	}
	cert, _ := s.ca.SSHUser("alice@physics")
	s.mustOpen(alice, cert)
	bobs, _ := s.ca.SSHUser("bob@physics")
	s.mustOpen(bob, bobs)
	s.eventually("his home hangs", func() bool { return tries.Load() > 1 })
	n := count(s.core.delegated(), "held")
	s.within(15*time.Second, "hers is renewed twice", func() bool { return count(s.core.delegated(), "held") >= n+2 })
	if _, err := s.Credential(t.Context(), alice); err != nil {
		t.Error(err)
	}
}
