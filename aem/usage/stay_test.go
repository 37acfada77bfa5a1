package usage_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// kernel stands in for the guard: one account, whose programs it counts by her
// uid, and whose processor time by the cgroup that she is in.
type kernel struct {
	mu      sync.Mutex
	known   bool
	execs   uint64
	sent    uint64
	cpu     time.Duration
	cgroup  uint64
	cgroups uint64
}

func (k *kernel) Stay(context.Context, xos.Account, uint32) (nodeguard.Stay, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.known && k.cgroup == 0 {
		return nodeguard.Stay{}, xos.Errorf(xos.NotFound, "nothing is known")
	}
	s := nodeguard.Stay{Cgroup: k.cgroup, Used: nodeguard.Used{Execs: k.execs, NetOut: k.sent, Uncounted: []string{"memory", "disk"}}}
	if k.cgroup == 0 {
		s.Uncounted = append(s.Uncounted, "cpu")
	} else {
		s.CPUUser = k.cpu
	}
	return s, nil
}

func (k *kernel) Arrive(xos.Account, uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known, k.execs, k.sent = true, 0, 0
	return nil
}

// mortal is the kernel to a process that may be killed.
type mortal struct {
	*kernel
	dead atomic.Bool
}

func (m *mortal) Arrive(a xos.Account, uid uint32) error {
	if m.dead.Load() {
		return nil
	}
	return m.kernel.Arrive(a, uid)
}

// sliced reports whether there is a cgroup.
func (k *kernel) sliced() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cgroup != 0
}

// forget has it know nothing.
func (k *kernel) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known = false
}

// slice makes a cgroup, or ends it.
func (k *kernel) slice(there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cgroup, k.cpu = 0, 0
	if there {
		k.cgroups++
		k.cgroup = k.cgroups
	}
}

func (k *kernel) work(execs uint64, cpu time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.execs += execs
	if k.cgroup != 0 {
		k.cpu += cpu
	}
}

// house is a machine's records of stays.
type house struct {
	t      *testing.T
	dir    string
	kernel *kernel
	living *mortal
	booted time.Time
	ledger *usage.Ledger
	stays  *usage.Stays
	stop   func()
	n      int
	open   []session.Session
}

var visitor = xos.Account{User: "vera", VO: "physics"}

func newHouse(t *testing.T) *house {
	h := &house{t: t, dir: t.TempDir(), kernel: &kernel{}, booted: time.Now().Add(-time.Hour)}
	h.start()
	return h
}

func (h *house) start() {
	l, err := usage.OpenLedger(h.dir, 0, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		h.t.Fatal(err)
	}
	h.ledger = l
	h.living = &mortal{kernel: h.kernel}
	h.stays = usage.NewStays("node1", l, h.living, func(a xos.Account) (uint32, bool) { return 1, a == visitor }, h.booted, time.Now, slog.New(slog.DiscardHandler))
	for _, s := range h.open {
		h.stays.Adopted(s)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	stays := h.stays
	go func() {
		defer close(done)
		stays.Run(ctx)
	}()
	h.stop = func() { cancel(); <-done }
}

func (h *house) login() {
	h.n++
	who := vom.Identity{Serial: "77"}
	who.Account = visitor
	s := session.Session{ID: xos.SessionID(fmt.Sprint("s-", h.n)), Identity: who, Mapping: session.Mapping{UID: 1}, Opened: time.Now()}
	h.stays.Began(s)
	h.open = append(h.open, s)
}

func (h *house) logout() {
	h.stays.Ended(h.open[0])
	h.open = h.open[1:]
}

func (h *house) records() (list []*xosv1.UsageRecord) {
	h.t.Helper()
	var sums usage.Sums
	if err := h.ledger.Each(time.Time{}, time.Time{}, func(r *xosv1.UsageRecord) bool { sums.Add(r); return true }); err != nil {
		h.t.Fatal(err)
	}
	return sums.Records()
}

func (h *house) one() *xosv1.UsageRecord {
	h.t.Helper()
	list := h.records()
	if len(list) != 1 {
		h.t.Fatalf("%d records: %v", len(list), list)
	}
	return list[0]
}

func TestStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer func() { h.stop() }()
		began := time.Now()
		h.login()
		if r := h.one(); r.Final || r.Logins != 1 || r.Account != "vera@physics" || r.Credential != "77" || r.Node != "node1" {
			t.Errorf("at the first login: %v", r)
		}
		// What is not known as a job is not a job that has ended.
		if err := h.ledger.Abandon(func(xos.JobID) bool { return false }); err != nil {
			t.Fatal(err)
		}
		h.kernel.slice(true)
		h.kernel.work(3, 2*time.Second)
		time.Sleep(10 * time.Minute)
		h.login()
		h.kernel.work(4, time.Second)
		h.logout()
		time.Sleep(time.Hour)
		if r := h.one(); r.Final || r.Logins != 2 || r.Executions != 7 || r.CpuUserMicros != 3e6 {
			t.Errorf("with one session left: %v", r)
		}
		h.logout()
		// systemd --user is still there, for 10 s, and does something.
		time.Sleep(5 * time.Second)
		h.kernel.work(2, time.Second)
		time.Sleep(5 * time.Second)
		if h.one().Final {
			t.Error("it is over while processes are left")
		}
		h.kernel.slice(false)
		time.Sleep(5 * time.Second)
		r := h.one()
		if !r.Final || r.Incomplete || r.Executions != 9 || r.CpuUserMicros != 4e6 || fmt.Sprint(r.Uncounted) != "[memory disk]" {
			t.Errorf("at the end: %v", r)
		}
		if took := usage.Wall(r); took < time.Hour+10*time.Minute || took > time.Hour+11*time.Minute || r.Started.AsTime().Before(began) {
			t.Errorf("it lasted %v", took)
		}
		time.Sleep(time.Hour)
		if len(h.ledger.Stays()) != 0 {
			t.Error("it goes on")
		}
	})
}

// TestStayOfAStoppedMachine: what was written down counts, and it is said that it
// is not all. What is counted anew after the start is not of that stay.
func TestStayOfAStoppedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.login()
		h.kernel.slice(true)
		h.kernel.work(5, time.Second)
		time.Sleep(2 * time.Minute)
		h.stop()
		h.kernel, h.open, h.booted = &kernel{}, nil, time.Now()
		// The first cgroup has the number that it had, and somebody is in it.
		h.kernel.slice(true)
		h.kernel.work(1, time.Minute)
		time.Sleep(time.Second)
		h.start()
		defer func() { h.stop() }()
		if r := h.one(); !r.Final || !r.Incomplete || r.Executions != 5 || r.CpuUserMicros != 1e6 {
			t.Errorf("%v", r)
		}
	})
}

// TestStayWithoutFigures: where nothing is counted it is said who came.
func TestStayWithoutFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer func() { h.stop() }()
		h.login()
		h.kernel.forget()
		time.Sleep(3 * time.Minute)
		if r := h.one(); r.Final {
			t.Errorf("over while she is there: %v", r)
		}
		h.logout()
		time.Sleep(5 * time.Second)
		if r := h.one(); !r.Final || r.Logins != 1 || len(r.Uncounted) != 7 {
			t.Errorf("%v", r)
		}
	})
}

// TestStaysAddUp: whatever happens in which order, and wherever the process is
// killed, each program counts once, and so does the processor time of records that
// are complete.
func TestStaysAddUp(t *testing.T) {
	several := 0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			h := newHouse(t)
			defer func() { h.stop() }()
			var execs, logins uint64
			var cpu time.Duration
			unseen := false // a cgroup ended while nobody looked
			for range 60 {
				switch r.IntN(6) {
				case 0, 1:
					h.login()
					logins++
					if !h.kernel.sliced() && r.IntN(4) > 0 { // else it is a su
						time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
						h.kernel.slice(true)
					}
				case 2:
					if len(h.open) > 0 {
						h.logout()
					}
				case 3:
					if len(h.open) > 0 || h.kernel.sliced() {
						n := uint64(r.IntN(5))
						h.kernel.work(n, time.Duration(n)*time.Second)
						execs += n
						if h.kernel.sliced() {
							cpu += time.Duration(n) * time.Second
						}
					}
				case 4:
					time.Sleep(time.Duration(r.IntN(100)) * time.Second)
					if r.IntN(2) == 0 && h.kernel.sliced() { // and before that all was looked at
						time.Sleep(2 * time.Minute)
						h.kernel.slice(false)
					}
				case 5: // killed: what it knew is lost
					synctest.Wait()
					h.living.dead.Store(true)
					left := t.TempDir()
					if err := os.CopyFS(left, os.DirFS(h.dir)); err != nil {
						t.Fatal(err)
					}
					h.stop() // what this writes is not found again
					h.dir = left
					if r.IntN(4) == 0 && h.kernel.sliced() {
						h.kernel.slice(false)
						unseen = true
					}
					h.start()
				}
			}
			for len(h.open) > 0 {
				h.logout()
			}
			time.Sleep(2 * time.Minute)
			h.kernel.slice(false)
			time.Sleep(10 * time.Second)
			var gotExecs, gotLogins int64
			var gotCPU time.Duration
			incomplete := false
			list := h.records()
			for _, u := range list {
				if !u.Final {
					t.Errorf("seed %d: not over: %v", seed, u)
				}
				gotExecs, gotLogins = gotExecs+u.Executions, gotLogins+u.Logins
				gotCPU += time.Duration(u.CpuUserMicros) * time.Microsecond
				incomplete = incomplete || u.Incomplete
			}
			if gotExecs != int64(execs) || gotCPU != cpu && !unseen || gotCPU > cpu || unseen && gotCPU != cpu && !incomplete {
				t.Errorf("seed %d: %d programs and %v, counted %d and %v in %d records", seed, execs, cpu, gotExecs, gotCPU, len(list))
			}
			if gotLogins < int64(logins) {
				t.Errorf("seed %d: %d logins, counted %d", seed, logins, gotLogins)
			}
			if len(list) > 2 {
				several++
			}
		})
	}
	if several < 5 {
		t.Errorf("only %d of them have several records", several)
	}
}
