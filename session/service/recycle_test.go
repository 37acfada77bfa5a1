package service_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// hunt stands in for the search of the machine.
func (s *stage) hunt(_ context.Context, ids []residue.Subject, progress func(int)) (residue.Report, error) {
	progress(7)
	if s.search == nil {
		return residue.Report{}, xos.Errorf(xos.Unavailable, "no search in this test")
	}
	return s.search(ids), nil
}

// outcome is the report of a search that found n traces of everybody.
func outcome(ids []residue.Subject, n int, blind ...string) residue.Report {
	r := residue.Report{Subjects: ids, Began: time.Now(), Ended: time.Now(), Counts: map[uint32]int{}}
	for _, k := range residue.Kinds() {
		r.Looks = append(r.Looks, residue.Look{Kind: k, Seen: 5})
	}
	r.Looks[0].Blind = blind
	for _, id := range ids {
		for range n {
			r.Counts[id.ID]++
			r.Findings = append(r.Findings, residue.Finding{ID: id.ID, Kind: residue.Cron, Where: "/var/spool/cron/x", Why: "owner"})
		}
	}
	return r
}

func (s *stage) certificate() *ssh.Certificate {
	c, _ := s.ca.SSHUser("alice@physics", credtest.Home("home-physics-alice"))
	return c
}

// leave has alice log in, log out, and lose her access.
func (s *stage) leave() (uid uint32) {
	s.Helper()
	if _, _, err := s.open(alice, s.certificate()); err != nil {
		s.Fatal(err)
	}
	e, _ := s.accounts.User(alice)
	s.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now().Add(time.Second), Reason: "left"})
	s.Changed(vom.Bundle{})
	return e.ID
}

func (s *stage) state() account.State {
	e, _ := s.accounts.User(alice)
	return e.State
}

func (s *stage) sweepNow() *xosv1.Sweep {
	s.Helper()
	resp, err := s.SweepUIDs(as(0), connect.NewRequest(&xosv1.SweepUIDsRequest{}))
	if err != nil {
		s.Fatal(err)
	}
	id := resp.Msg.Sweep.Id
	var last *xosv1.Sweep
	s.eventually("the sweep ends", func() bool {
		l, err := s.ListUIDs(as(0), connect.NewRequest(&xosv1.ListUIDsRequest{}))
		if err != nil {
			s.Fatal(err)
		}
		last = l.Msg.Sweep
		return last.Id == id && last.Ended != nil
	})
	return last
}

func (s *stage) verdicts() (out []audit.Entry) {
	s.Helper()
	out, err := s.audit.Query(audit.Filter{Action: "uid.free"})
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func TestRootUIDIsRecycled(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.quarantine = 200 * time.Millisecond
	var mu sync.Mutex
	left, blind := 2, []string(nil)
	s.search = func(ids []residue.Subject) residue.Report {
		mu.Lock()
		defer mu.Unlock()
		return outcome(ids, left, blind...)
	}
	s.start()
	uid := s.leave()
	s.eventually("quarantine", func() bool { return s.state() == account.Quarantined })
	if !s.guard.hasKilled(uid) || s.mounts.has("home-physics-alice") {
		t.Error("something of hers is still here")
	}
	if _, err := os.Stat(filepath.Join(s.run, "accounts", decimal(uid)+".json")); !os.IsNotExist(err) {
		t.Errorf("her record: %v", err)
	}
	// The first sweep comes by itself, and finds something.
	s.eventually("a sweep", func() bool { return len(s.verdicts()) > 0 })
	v := s.verdicts()[0]
	if v.Allowed || v.Subject != "alice@physics" || v.Detail["uid"] != decimal(uid) || !strings.Contains(v.Detail["found"], "/var/spool/cron/x") ||
		!strings.Contains(v.Detail["looked"], "file: 5 seen") || !strings.Contains(v.Reason, "2 traces") {
		t.Errorf("on record: %+v", v)
	}
	shown, err := s.ShowUID(as(0), connect.NewRequest(&xosv1.ShowUIDRequest{Subject: decimal(uid)}))
	if err != nil || shown.Msg.Uid.State != "quarantined" || shown.Msg.Uid.Found != 2 || len(shown.Msg.Findings) == 0 ||
		!strings.Contains(shown.Msg.Findings[0].Advice, "crontab -r -u alice@physics") {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	// What could not be looked at is not clean.
	mu.Lock()
	left, blind = 0, []string{"/proc/1: permission denied"}
	mu.Unlock()
	s.eventually("its time is over", func() bool { return s.sweepNow().Ended != nil && len(s.verdicts()) >= 2 })
	if v := s.verdicts(); v[len(v)-1].Allowed || s.state() != account.Quarantined {
		t.Errorf("freed blindly: %+v", v[len(v)-1])
	}
	mu.Lock()
	blind = nil
	mu.Unlock()
	s.eventually("freed", func() bool { return s.state() != account.Quarantined || s.sweepNow().Freed == 1 })
	all := s.verdicts()
	last := all[len(all)-1]
	if spent := s.accounts.Spent(); !last.Allowed || len(spent) != 1 || spent[0].ID != uid || spent[0].Proof != last.Request || last.Request == "" {
		t.Errorf("freed: %+v by %+v", spent, last)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "home", "physics", "alice")); !os.IsNotExist(err) {
		t.Errorf("her mount point: %v", err)
	}
	// She is admitted again, and starts anew.
	s.ca.Change(func(b *vom.Bundle) { b.Revocations = nil })
	s.Changed(vom.Bundle{})
	// A login that began in the very tick in which she was freed is refused.
	s.eventually("she is back", func() bool { _, _, err := s.open(alice, s.certificate()); return err == nil })
	if e, ok := s.accounts.User(alice); !ok || e.ID != uid || e.State != account.Active {
		t.Errorf("her uid was free, and is %+v", e)
	}
}

// frailAuditor dies after it has written.
type frailAuditor struct {
	*audit.Log
	dead func(audit.Record) bool
}

func (a frailAuditor) Append(ctx context.Context, r audit.Record) error {
	if err := a.Log.Append(ctx, r); err != nil || a.dead(r) {
		return xos.Errorf(xos.Unavailable, "the power failed: %v", err)
	}
	return nil
}

// The power fails between the proof and what it proves: nothing is freed by
// halves, and the next sweep does it whole.
func TestRootSweepIsInterrupted(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.quarantine = time.Millisecond
	s.search = func(ids []residue.Subject) residue.Report { return outcome(ids, 0) }
	s.auditor = frailAuditor{s.audit, func(r audit.Record) bool { return r.Action == "uid.free" }}
	s.start()
	uid := s.leave()
	s.eventually("a proof", func() bool { v := s.verdicts(); return len(v) > 0 && v[0].Allowed })
	s.kill()
	s.start()
	if e, ok := s.accounts.User(alice); !ok || e.ID != uid || e.State != account.Quarantined {
		t.Fatalf("after the crash: %+v", e)
	}
	s.kill()
	s.auditor = s.audit
	s.start()
	s.eventually("freed", func() bool { return len(s.accounts.Spent()) == 1 })
}

func TestRootIdleUIDRests(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.idle = 300 * time.Millisecond
	s.start()
	p, _, err := s.open(alice, s.certificate())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * s.idle) // that she is left alone is what is shown
	if s.state() != account.Active {
		t.Errorf("in use: %s", s.state())
	}
	e, _ := s.accounts.User(alice)
	syscallKill(p.PID)
	s.eventually("quarantine", func() bool { return s.state() == account.Quarantined })
	if s.accounts.Spent(); s.quarantine != 0 {
		t.Fatal("this test is about ids that are kept")
	}
	if _, _, err := s.open(alice, s.certificate()); err != nil {
		t.Fatal(err)
	}
	if again, _ := s.accounts.User(alice); again.ID != e.ID || again.State != account.Active {
		t.Errorf("back: %+v", again)
	}
}

func TestRootOnlyRootSeesUIDs(t *testing.T) {
	s := newStage(t)
	ctx := as(1000)
	_, err1 := s.ListUIDs(ctx, connect.NewRequest(&xosv1.ListUIDsRequest{}))
	_, err2 := s.ShowUID(ctx, connect.NewRequest(&xosv1.ShowUIDRequest{Subject: "alice@physics"}))
	_, err3 := s.SweepUIDs(ctx, connect.NewRequest(&xosv1.SweepUIDsRequest{}))
	for _, err := range []error{err1, err2, err3} {
		if !xos.Is(err, xos.Permission) {
			t.Error(err)
		}
	}
	if _, err := s.ListUIDs(as(0), connect.NewRequest(&xosv1.ListUIDsRequest{State: "x"})); !xos.Is(err, xos.Invalid) {
		t.Error(err)
	}
	if _, err := s.SweepUIDs(as(0), connect.NewRequest(&xosv1.SweepUIDsRequest{})); !xos.Is(err, xos.NotFound) {
		t.Error(err)
	}
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func syscallKill(pid int) { unix.Kill(pid, unix.SIGKILL) }

// TestRootFreeUIDIsForgotten: the guard has room for one label; it forgets a uid
// when that is free, with its figures on record, and not before. What was killed
// before that, or failed, is made up for.
func TestRootFreeUIDIsForgotten(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.quarantine = 100 * time.Millisecond
	s.retire = 10 * time.Millisecond
	s.guard.room = 1
	s.search = func(ids []residue.Subject) residue.Report { return outcome(ids, 0) }
	fails := true
	s.guard.forget = func(uid uint32) error {
		if v := s.verdicts(); !s.accounts.IsFree(uid) || len(v) == 0 || !v[len(v)-1].Allowed || !strings.Contains(v[len(v)-1].Detail["used"], "received 11, sent 22 bytes; executed 33") {
			t.Errorf("forgotten while it is not free, or not on record: %+v", v)
		}
		if fails {
			return xos.Errorf(xos.Unavailable, "the power failed")
		}
		return nil
	}
	s.start()
	uid := s.leave()
	if !s.guard.labelled(uid) {
		t.Error("her uid has no label")
	}
	s.eventually("quarantine", func() bool { return s.state() == account.Quarantined })
	s.eventually("freed", func() bool {
		if !s.guard.labelled(uid) {
			t.Error("forgotten too early")
		}
		s.setClock(25 * time.Hour)
		return len(s.accounts.Spent()) == 1
	})
	s.guard.mu.Lock()
	if len(s.guard.unbound) == 0 || s.guard.unbound[0] != uid {
		t.Errorf("what bounded her sessions: %v", s.guard.unbound)
	}
	s.guard.mu.Unlock()
	s.kill() // before it was done
	if !s.guard.labelled(uid) {
		t.Fatal("this test is about what was not done")
	}
	// Something has her uid after all.
	left := exec.Command("sleep", "60")
	left.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	defer left.Process.Kill()
	fails = false
	s.setClock(0)
	s.start()
	bob := xos.Account{User: "bob", VO: "physics"}
	time.Sleep(10 * s.retire)
	if !s.guard.labelled(uid) {
		t.Error("a uid that has a process was forgotten")
	}
	left.Process.Kill()
	left.Wait()
	s.eventually("it is forgotten", func() bool { return !s.guard.labelled(uid) })
	c, _ := s.ca.SSHUser(bob.String())
	if _, _, err := s.open(bob, c); err != nil {
		t.Errorf("there is no room for the next one: %v", err)
	}
	if e, _ := s.accounts.User(bob); !s.guard.labelled(e.ID) {
		t.Error("bob has no label")
	}
	// The one after is told why, and so is root.
	carla := xos.Account{User: "carla", VO: "physics"}
	c, _ = s.ca.SSHUser(carla.String())
	p, _, err := s.open(carla, c)
	m := loginID.FindStringSubmatch(fmt.Sprint(err))
	if !xos.Is(err, xos.Unavailable) || m == nil {
		t.Fatalf("without a label: %v", err)
	}
	s.eventually("her login process is ended", func() bool { return dead(p) })
	if ex, err := s.explain(0, "login", m[1]); err != nil || !strings.Contains(ex.Lines[0], "no room for a label") {
		t.Errorf("root is told %v, %v", ex, err)
	}
	if denied, err := s.audit.Query(audit.Filter{Subject: carla.String(), Denied: true}); err != nil || len(denied) != 1 {
		t.Errorf("on record: %v, %v", denied, err)
	}
}

// TestRootPreviewIsNotLabelled: a uid that nobody logs in with takes no place.
func TestRootPreviewIsNotLabelled(t *testing.T) {
	s := newStage(t)
	for i := range 100 {
		if _, err := s.GetPwNam(t.Context(), root, xos.Account{User: xos.UserID("u" + strconv.Itoa(i)), VO: "physics"}); err != nil {
			t.Fatal(err)
		}
	}
	if uids, _ := s.guard.Labelled(t.Context()); len(uids) != 0 {
		t.Errorf("labelled: %v", uids)
	}
}
