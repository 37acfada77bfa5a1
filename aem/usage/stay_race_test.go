package usage_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// crowd is a kernel with many accounts. What one of them is asked for may hang.
type crowd struct {
	mu   sync.Mutex
	of   map[xos.Account]*kernel
	hang map[xos.Account]chan struct{}
}

func (c *crowd) kernel(a xos.Account) *kernel {
	c.mu.Lock()
	hang := c.hang[a]
	if c.of == nil {
		c.of = map[xos.Account]*kernel{}
	}
	if c.of[a] == nil {
		c.of[a] = &kernel{}
	}
	k := c.of[a]
	c.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return k
}

func (c *crowd) Stay(ctx context.Context, a xos.Account, uid uint32) (nodeguard.Stay, error) {
	return c.kernel(a).Stay(ctx, a, uid)
}

func (c *crowd) Arrive(a xos.Account, uid uint32) error { return c.kernel(a).Arrive(a, uid) }

func visit(a xos.Account, n int) session.Session {
	who := vom.Identity{Serial: "77"}
	who.Account = a
	return session.Session{ID: xos.SessionID(fmt.Sprint("s-", a.User, n)), Identity: who, Mapping: session.Mapping{UID: 1}, Opened: time.Now()}
}

// TestStaysOfManyAtOnce: each login and program of many accounts, whose sessions
// begin and end at once, counts once; what Began has returned from is on disk.
func TestStaysOfManyAtOnce(t *testing.T) {
	const accounts, visits = 12, 5
	dir, c := t.TempDir(), &crowd{}
	open := func() (*usage.Ledger, *usage.Stays) {
		l, err := usage.OpenLedger(dir, 0, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return l, usage.NewStays("node1", l, c, func(xos.Account) (uint32, bool) { return 1, true }, time.Now().Add(-time.Hour), time.Now, slog.New(slog.DiscardHandler))
	}
	l, s := open()
	ctx, cancel := context.WithCancel(t.Context())
	var running, all sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	for i := range accounts {
		a := xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: "physics"}
		for n := range visits {
			all.Go(func() {
				v := visit(a, n)
				s.Began(v)
				if r := stayOf(t, dir, a); r == nil || r.Logins == 0 {
					t.Errorf("%s: on disk is %v", a, r)
				}
				c.kernel(a).work(1, 0)
				if n > 0 {
					s.Ended(v)
				}
			})
		}
	}
	all.Wait()
	if got := len(l.Stays()); got != accounts {
		t.Errorf("%d accounts have %d stays that are not over", accounts, got)
	}
	cancel()
	running.Wait()
	l, _ = open() // a successor knows the same
	logins, execs := map[string]int64{}, map[string]int64{}
	if err := l.Each(time.Time{}, time.Time{}, func(r *xosv1.UsageRecord) bool {
		logins[r.Account] += r.Logins
		execs[r.Account] += r.Executions
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for i := range accounts {
		if a := fmt.Sprintf("u%d@physics", i); logins[a] != visits || execs[a] != visits {
			t.Errorf("%s: %d logins and %d programs of %d", a, logins[a], execs[a], visits)
		}
	}
}

// stayOf reads an account's open record from the disk.
func stayOf(t *testing.T, dir string, a xos.Account) *xosv1.UsageRecord {
	copied := t.TempDir()
	names, err := filepath.Glob(filepath.Join(dir, "stays", "*.json"))
	if err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(copied, "stays"), 0o700); err != nil {
		t.Error(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(copied, "stays", filepath.Base(name)), data, 0o600); err != nil {
			t.Error(err)
		}
	}
	l, err := usage.OpenLedger(copied, 0, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, r := range l.Stays() {
		if r.Account == a.String() {
			return r
		}
	}
	return nil
}

// TestStaysDoNotWaitForEachOther: while it hangs what begins with one account,
// another's login goes on.
func TestStaysDoNotWaitForEachOther(t *testing.T) {
	slow, quick := xos.Account{User: "slow", VO: "physics"}, xos.Account{User: "quick", VO: "physics"}
	hang := make(chan struct{})
	c := &crowd{hang: map[xos.Account]chan struct{}{slow: hang}}
	l := open(t, t.TempDir(), time.Now())
	s := usage.NewStays("node1", l, c, nil, time.Now(), time.Now, slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	for n := range 2 {
		all.Go(func() { s.Began(visit(slow, n)) })
	}
	time.Sleep(50 * time.Millisecond)
	done := make(chan struct{})
	all.Go(func() { s.Began(visit(quick, 0)); close(done) })
	select {
	case <-done:
		if list := l.Stays(); len(list) != 1 || list[0].Account != quick.String() {
			t.Errorf("meanwhile: %v", list)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits")
	}
	close(hang)
	all.Wait()
	if list := l.Stays(); len(list) != 2 || list[0].Logins+list[1].Logins != 3 {
		t.Errorf("then: %v", list)
	}
}

// TestPutWaitsForNoOthersDisk: while the disk hangs with a record that is settled,
// others are written down.
func TestPutWaitsForNoOthersDisk(t *testing.T) {
	dir, c := t.TempDir(), &core{}
	l := open(t, dir, begin.Add(time.Hour))
	month := filepath.Join(dir, "2026-11.jsonl")
	if err := unix.Mkfifo(month, 0o600); err != nil { // who opens it to write waits for a reader
		t.Fatal(err)
	}
	put(t, l, record("a", "alice@physics", "node1"))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx, c) })
	for deadline := time.Now().Add(10 * time.Second); c.has() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the core was not told")
		}
	}
	time.Sleep(50 * time.Millisecond) // it is being settled by now
	done := make(chan error, 1)
	go func() { done <- l.Put(record("b", "bob@physics", "node1")) }()
	select {
	case err := <-done:
		if err != nil || l.Open("b") == nil || l.Open("a") == nil {
			t.Errorf("%v, %v, %v", err, l.Open("a"), l.Open("b"))
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits")
	}
	cancel()
	r, err := os.OpenFile(month, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	running.Wait()
}
