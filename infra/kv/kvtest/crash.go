package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// Crasher is a store whose machine can lose power.
type Crasher interface {
	// Store is open until Crash.
	Store() kv.Store
	// Crash takes the power away now, in the middle of whatever calls are in
	// flight (they may fail, or seem to succeed after the fact), and opens the
	// store anew from what that instant left.
	Crash(t *testing.T)
}

// crashWriters write at once; each commit of one is several records.
const crashWriters, crashParts = 4, 3

// RunCrash takes the power away in the middle of concurrent writes, rounds
// times over, and checks that what was acknowledged, read or watched before is
// there afterwards, and that no transaction is there in part.
func RunCrash(t *testing.T, c Crasher, rounds int) {
	seen := &witness{}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			ctx, stop := context.WithTimeout(context.Background(), patience)
			defer stop()
			var wg sync.WaitGroup
			s := c.Store()
			for w := range crashWriters {
				wg.Go(func() { seen.write(ctx, t, s, round, w) })
			}
			wg.Go(func() { seen.read(ctx, t, s) })
			wg.Go(func() { seen.watch(ctx, t, s) })
			goal := seen.total.Load() + int64(5+7*round%40)
			eventually(t, "enough writes", func() bool { return seen.total.Load() >= goal })

			before := seen.freeze()
			c.Crash(t)
			stop()
			wg.Wait()
			before.check(t, c.Store())
			seen.restart(t, c.Store())
		})
	}
}

// witness is what somebody was told is so.
type witness struct {
	acked    [crashWriters]atomic.Int64 // last acknowledged commit of each writer
	total    atomic.Int64               // acknowledged commits, or more if one was read or watched
	revision atomic.Uint64              // highest seen by anyone
	resume   [crashWriters]int64        // where each writer goes on
}

type promise struct {
	acked    [crashWriters]int64
	total    int64
	revision kv.Revision
}

func (w *witness) freeze() (p promise) {
	for i := range w.acked {
		p.acked[i] = w.acked[i].Load()
	}
	p.total = w.total.Load()
	p.revision = kv.Revision(w.revision.Load())
	return p
}

func raise(a *atomic.Int64, n int64) {
	for old := a.Load(); old < n && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}

func (w *witness) sawRevision(r kv.Revision) {
	for old := w.revision.Load(); old < uint64(r) && !w.revision.CompareAndSwap(old, uint64(r)); old = w.revision.Load() {
	}
}

// interrupted tells the end of a round from a real failure.
func interrupted(ctx context.Context, t *testing.T, what string, err error) bool {
	if err == nil && ctx.Err() == nil {
		return false
	}
	if err != nil && !xos.Is(err, xos.Unavailable) {
		t.Errorf("%s: %v", what, err)
	}
	return true
}

// write commits, for i from where it stands: its parts, its own count and the
// count of all, which every writer reads and raises.
func (w *witness) write(ctx context.Context, t *testing.T, s kv.Store, round, me int) {
	for i := w.resume[me] + 1; ; i++ {
		var all int64
		err := s.Update(ctx, func(txn kv.Txn) error {
			n, err := getInt(txn, "t/total")
			if err != nil {
				return err
			}
			all = n + 1
			for p := range crashParts {
				err = errors.Join(err, txn.Put(fmt.Appendf(nil, "t/%d/%08d/%d", me, i, p), fmt.Append(nil, round)))
			}
			return errors.Join(err, putInt(txn, "t/total", all), putInt(txn, fmt.Sprintf("t/%d/n", me), i))
		})
		if interrupted(ctx, t, "Update", err) {
			return
		}
		w.acked[me].Store(i)
		raise(&w.total, all)
	}
}

// read takes note of the highest count a View has shown.
func (w *witness) read(ctx context.Context, t *testing.T, s kv.Store) {
	for {
		var n int64
		var rev kv.Revision
		err := s.View(ctx, func(txn kv.Txn) (err error) {
			n, err = getInt(txn, "t/total")
			rev = txn.Revision()
			return err
		})
		if interrupted(ctx, t, "View", err) {
			return
		}
		raise(&w.total, n)
		w.sawRevision(rev)
		time.Sleep(100 * time.Microsecond) // a reader, not a load
	}
}

// watch takes note of the highest count an event has shown.
func (w *witness) watch(ctx context.Context, t *testing.T, s kv.Store) {
	ch, err := s.Watch(ctx, []byte("t/total"), 0)
	if interrupted(ctx, t, "Watch", err) {
		return
	}
	for e := range ch {
		n := int64(0)
		for _, b := range e.Value {
			n = n<<8 | int64(b)
		}
		raise(&w.total, n)
		w.sawRevision(e.Revision)
	}
}

// check compares a store after the crash with what was promised before it.
func (p promise) check(t *testing.T, s kv.Store) {
	t.Helper()
	view(t, s, func(txn kv.Txn) error {
		if txn.Revision() < p.revision {
			t.Errorf("the store is at revision %d, but %d was seen", txn.Revision(), p.revision)
		}
		total, err := getInt(txn, "t/total")
		if total < p.total {
			t.Errorf("commit %d of all was acknowledged or seen, %d survived", p.total, total)
		}
		var sum int64
		for me := range crashWriters {
			n, err := getInt(txn, fmt.Sprintf("t/%d/n", me))
			if err != nil {
				return err
			}
			sum += n
			if n < p.acked[me] {
				t.Errorf("writer %d: commit %d was acknowledged, %d survived", me, p.acked[me], n)
			}
			parts, err := list(txn, fmt.Sprintf("t/%d/0", me), fmt.Sprintf("t/%d/:", me))
			if err != nil {
				return err
			}
			if int64(len(parts)) != n*crashParts {
				t.Errorf("writer %d: %d commits left %d records, want %d: one is there in part", me, n, len(parts), n*crashParts)
			}
			if n > 0 && !strings.HasPrefix(parts[len(parts)-1], fmt.Sprintf("t/%d/%08d/", me, n)) {
				t.Errorf("writer %d: the last record is %q, want one of commit %d", me, parts[len(parts)-1], n)
			}
		}
		if sum != total {
			t.Errorf("the writers' counts make %d, the count of all is %d", sum, total)
		}
		return err
	})
}

// restart sets the witness to what survived, so that the next round begins
// there.
func (w *witness) restart(t *testing.T, s kv.Store) {
	t.Helper()
	view(t, s, func(txn kv.Txn) error {
		total, err := getInt(txn, "t/total")
		w.total.Store(total)
		w.revision.Store(uint64(txn.Revision()))
		for me := range crashWriters {
			n, nerr := getInt(txn, fmt.Sprintf("t/%d/n", me))
			err = errors.Join(err, nerr)
			w.resume[me] = n
			w.acked[me].Store(n)
		}
		return err
	})
}
