package kvtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/infra/kv"
)

// between makes a function that, on the first run of a transaction only, lets
// another one commit in the middle of it; and counts the runs.
func between(s kv.Store, ctx context.Context, other func(kv.Txn) error) (step func() error, runs *int) {
	runs = new(int)
	return func() error {
		*runs++
		if *runs > 1 {
			return nil
		}
		return s.Update(ctx, other)
	}, runs
}

func testSnapshot(t *testing.T, s kv.Store) {
	put(t, s, "t/a", "old")
	view(t, s, func(txn kv.Txn) error {
		first, err := list(txn, "t/", "t0")
		put(t, s, "t/a", "new", "t/b", "new")
		again, err2 := list(txn, "t/", "t0")
		v, _, err3 := txn.Get([]byte("t/a"))
		if d := cmp.Diff(first, again); d != "" || string(v) != "old" {
			t.Errorf("a View changed under its reader: Get %q, Range (-first +again):\n%s", v, d)
		}
		return errors.Join(err, err2, err3)
	})
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/a=new", "t/b=new"}, got); d != "" {
			t.Errorf("a View after an acknowledged Update misses it (-want +got):\n%s", d)
		}
		return err
	})
}

// testBankTransfer moves money about; no reader may ever see a sum that
// differs, and none may be lost at the end.
func testBankTransfer(t *testing.T, s kv.Store) {
	const accounts, each, workers, transfers = 6, 100, 6, 30
	ctx := deadline(t)
	name := func(i int) string { return fmt.Sprintf("t/account/%d", i) }
	update(t, s, func(txn kv.Txn) error {
		var err error
		for i := range accounts {
			err = errors.Join(err, putInt(txn, name(i), each))
		}
		return err
	})
	sum := func(txn kv.Txn) error {
		var total int64
		for i := range accounts {
			n, err := getInt(txn, name(i))
			if err != nil {
				return err
			}
			total += n
		}
		if total != accounts*each {
			return fmt.Errorf("the accounts hold %d, want %d", total, accounts*each)
		}
		return nil
	}
	var workersDone, readerDone sync.WaitGroup
	stop := make(chan struct{})
	readerDone.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.View(ctx, sum); err != nil {
					t.Errorf("View: %v", err)
					return
				}
			}
		}
	})
	for w := range workers {
		workersDone.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range transfers {
				from, to, n := rng.IntN(accounts), rng.IntN(accounts), rng.Int64N(50)
				err := s.Update(ctx, func(txn kv.Txn) error {
					a, err := getInt(txn, name(from))
					if err != nil || a < n || from == to {
						return err
					}
					b, err := getInt(txn, name(to))
					return errors.Join(err, putInt(txn, name(from), a-n), putInt(txn, name(to), b+n))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
			}
		})
	}
	workersDone.Wait()
	close(stop)
	readerDone.Wait()
	view(t, s, sum)
}

// testWriteSkew: two go off duty, each having seen the other on duty.
func testWriteSkew(t *testing.T, s kv.Store) {
	put(t, s, "t/alice", "on", "t/bob", "on")
	ctx := deadline(t)
	leave := func(who string, meanwhile func() error) func(kv.Txn) error {
		return func(txn kv.Txn) error {
			a, _, err := txn.Get([]byte("t/alice"))
			b, _, err2 := txn.Get([]byte("t/bob"))
			if err := errors.Join(err, err2, meanwhile()); err != nil {
				return err
			}
			if string(a) == "on" && string(b) == "on" {
				return txn.Put([]byte(who), []byte("off"))
			}
			return nil
		}
	}
	other, runs := between(s, ctx, leave("t/bob", func() error { return nil }))
	update(t, s, leave("t/alice", other))
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/alice=on", "t/bob=off"}, got); d != "" || *runs != 2 {
			t.Errorf("after %d runs, want 2 (-want +got):\n%s", *runs, d)
		}
		return err
	})
}

// testReadOnlyUpdate: an Update that writes nothing is a View that may be of
// the present.
func testReadOnlyUpdate(t *testing.T, s kv.Store) {
	put(t, s, "t/a", "1")
	update(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/a=1"}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		return err
	})
}

func testRevisions(t *testing.T, s kv.Store) {
	var last kv.Revision
	for i := range 5 {
		put(t, s, "t/a", fmt.Sprint(i))
		view(t, s, func(txn kv.Txn) error {
			if txn.Revision() <= last {
				t.Errorf("revision %d after %d", txn.Revision(), last)
			}
			last = txn.Revision()
			return nil
		})
	}
	update(t, s, func(txn kv.Txn) error {
		if txn.Revision() < last {
			t.Errorf("an Update reads revision %d after %d was acknowledged", txn.Revision(), last)
		}
		return nil
	})
}
