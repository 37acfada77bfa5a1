package service_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/threads"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// TestRootThousandUsers: a thousand people log in, leave, lose their access, rest,
// are searched for, and are gone: no process, mount, descriptor, thread or file is
// left of them, and memory keeps no more of them than a name. Accounts, records,
// credentials and their ways are the real ones; the guard, the mounter and the
// search are not.
func TestRootThousandUsers(t *testing.T) {
	const few, many, atOnce = 50, 1000, 20
	s := newStage(t)
	s.kill()
	s.quarantine = time.Minute
	s.search = func(ids []residue.Subject) residue.Report { return outcome(ids, s.traces(ids)) }
	s.start()
	drained := make(chan struct{})
	go func() { // as the jobs' service does
		for {
			select {
			case <-s.Revoked():
			case <-drained:
				return
			}
		}
	}()
	defer close(drained)
	round := func(first, people int) {
		t.Helper()
		begin := time.Now()
		step := func(what string) {
			t.Logf("%d people: %s after %v", people, what, time.Since(begin).Round(time.Millisecond))
		}
		var work sync.WaitGroup
		turn := make(chan struct{}, atOnce)
		for i := first; i < first+people; i++ {
			a := xos.Account{User: xos.UserID(fmt.Sprintf("u%d", i)), VO: "physics"}
			c, _ := s.ca.SSHUser(a.String(), credtest.Groups("higgs"))
			turn <- struct{}{}
			work.Go(func() {
				defer func() { <-turn }()
				p, reply, err := s.open(a, c)
				if err != nil || reply.Message != "" {
					t.Errorf("%s: %q, %v", a, reply.Message, err)
					return
				}
				if i%2 == 0 { // half close their session, half are just gone
					s.PAMClose(t.Context(), p, reply.Session)
				}
				kill(p)
			})
		}
		work.Wait()
		step("logged in")
		s.patiently("all sessions end", func() bool { return s.sessions() == 0 })
		s.patiently("all homes are unmounted", func() bool { s.mounts.mu.Lock(); defer s.mounts.mu.Unlock(); return len(s.mounts.at) == 0 })
		step("put away")
		s.ca.Revoke(vom.Revocation{VO: "physics", Before: time.Now().Add(time.Second), Reason: "the VO's work is done"})
		s.Changed(vom.Bundle{})
		s.patiently("all rest", func() bool { return s.count(account.Quarantined) >= people })
		step("at rest")
		s.setClock(2 * time.Minute)
		s.patiently("all are free", func() bool {
			return s.count(account.Quarantined) == 0 || s.sweepPatiently().Freed > 0 && s.count(account.Quarantined) == 0
		})
		step("free")
		s.setClock(0)
		s.ca.Change(func(b *vom.Bundle) { b.Revocations = nil })
		s.Changed(vom.Bundle{})
	}
	round(0, few)
	// What the runtime needs for each thread it keeps for ever; and when a thousand people
	// lose their access at once, as many may be in the file system for a moment, or far
	// fewer. So they shall be there before anything is measured.
	threads.Reserve(few + many)
	before := s.footprint(few)
	round(few, many)
	after := s.footprint(few + many)
	t.Logf("after %d people: %v; after %d more: %v", few, before, many, after)
	for what, n := range after {
		// A freed account's name stays in the account map, and the test itself keeps
		// each login's process: together some 2.5 KiB a person.
		slack := map[string]int{"KiB of heap": 4 * many, "goroutines": 10, "descriptors": 10}[what]
		if n > before[what]+slack {
			t.Errorf("%d %s, after %d people %d", n, what, few, before[what])
		}
	}
	if users := s.accounts.Users(); len(users) != 0 {
		t.Errorf("%d accounts are left", len(users))
	}
	if free := s.accounts.Spent(); len(free) != few+many {
		t.Errorf("%d uids are free, of %d people", len(free), few+many)
	}
}

func (s *stage) count(state account.State) (n int) {
	for _, e := range s.accounts.Users() {
		if e.State == state {
			n++
		}
	}
	return n
}

// traces counts what is left of ids in what the service keeps, by name and by
// owner, and in processes. The whole machine is searched in session/residue.
func (s *stage) traces(ids []residue.Subject) (n int) {
	of := map[string]bool{}
	for _, id := range ids {
		of[decimal(id.ID)], of[id.Name] = true, true
	}
	for _, dir := range []string{s.run, filepath.Join(s.dir, "home")} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			name, _, _ := strings.Cut(d.Name(), ".")
			if st := info.Sys().(*syscall.Stat_t); of[name] || of[decimal(st.Uid)] || of[decimal(st.Gid)] {
				s.Errorf("%s is left", path)
				n++
			}
			return nil
		})
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range processes {
		text, _ := os.ReadFile(path) // it may have ended
		_, uids, _ := strings.Cut(string(text), "\nUid:")
		uids, _, _ = strings.Cut(uids, "\n")
		for _, uid := range strings.Fields(uids) {
			if of[uid] {
				s.Errorf("%s has uid %s", path, uid)
				n++
			}
		}
	}
	return n
}

// patiently is eventually for what a thousand people take.
func (s *stage) patiently(what string, f func() bool) {
	s.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
	}
}

func (s *stage) sweepPatiently() *xosv1.Sweep {
	s.Helper()
	resp, err := s.SweepUIDs(as(0), connect.NewRequest(&xosv1.SweepUIDsRequest{}))
	if xos.Is(err, xos.NotFound) {
		return &xosv1.Sweep{}
	} else if err != nil {
		s.Fatal(err)
	}
	last := resp.Msg.Sweep
	s.patiently("the sweep ends", func() bool {
		l, err := s.ListUIDs(as(0), connect.NewRequest(&xosv1.ListUIDsRequest{State: "quarantined"}))
		if err != nil {
			s.Fatal(err)
		}
		last = l.Msg.Sweep
		return last.Ended != nil
	})
	if last.Failed != "" || len(last.Blind) > 0 {
		s.Fatalf("the sweep: %s %v", last.Failed, last.Blind)
	}
	return last
}

// footprint is what this process and its folders hold, besides the descriptor
// that the test has of each login's process.
func (s *stage) footprint(logins int) map[string]int {
	s.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out := map[string]int{"KiB of heap": int(m.HeapAlloc >> 10), "goroutines": runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		out["descriptors"] = len(fds) - logins
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	out["mounts"] = strings.Count(string(mounts), "\n")
	for _, dir := range []string{s.run, filepath.Join(s.dir, "home")} {
		filepath.WalkDir(dir, func(_ string, _ fs.DirEntry, err error) error {
			if err == nil {
				out["files"]++
			}
			return err
		})
	}
	return out
}
