package kvtest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/xtreemos/xos/infra/kv"
)

// phantom runs a transaction that writes how many records a range has, while
// another changes that; the result must be the later count.
func phantom(t *testing.T, s kv.Store, start, end string, other func(kv.Txn) error, want int64) {
	t.Helper()
	meanwhile, runs := between(s, deadline(t), other)
	update(t, s, func(txn kv.Txn) error {
		records, err := list(txn, start, end)
		if err := errors.Join(err, meanwhile()); err != nil {
			return err
		}
		return putInt(txn, "result", int64(len(records)))
	})
	view(t, s, func(txn kv.Txn) error {
		got, err := getInt(txn, "result")
		if got != want || *runs != 2 {
			t.Errorf("counted %d in %d runs, want %d in 2", got, *runs, want)
		}
		return err
	})
}

func testPhantom(t *testing.T, s kv.Store) {
	put(t, s, "t/p/b", "", "t/p/d", "")
	for _, c := range []struct{ name, start, end, key string }{
		{"first", "t/p/", "t/p0", "t/p/a"},
		{"middle", "t/p/", "t/p0", "t/p/c"},
		{"last", "t/p/", "t/p0", "t/p/\xff"},
		{"start itself", "t/p/aa", "t/p0", "t/p/aa"},
		{"to the last key", "t/p/", "", "\xfe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before int64
			view(t, s, func(txn kv.Txn) error {
				got, err := list(txn, c.start, c.end)
				before = int64(len(got))
				return err
			})
			phantom(t, s, c.start, c.end, func(txn kv.Txn) error { return txn.Put([]byte(c.key), nil) }, before+1)
		})
	}
	t.Run("empty range", func(t *testing.T) {
		phantom(t, s, "t/q/", "t/q0", func(txn kv.Txn) error { return txn.Put([]byte("t/q/a"), nil) }, 1)
	})
	t.Run("missing key", func(t *testing.T) {
		meanwhile, runs := between(s, deadline(t), func(txn kv.Txn) error { return txn.Put([]byte("t/lock"), []byte("other")) })
		update(t, s, func(txn kv.Txn) error {
			_, taken, err := txn.Get([]byte("t/lock"))
			if err := errors.Join(err, meanwhile()); err != nil || taken {
				return err
			}
			return txn.Put([]byte("t/lock"), []byte("mine"))
		})
		view(t, s, func(txn kv.Txn) error {
			v, _, err := txn.Get([]byte("t/lock"))
			if string(v) != "other" || *runs != 2 {
				t.Errorf("the lock is held by %q after %d runs, want other after 2", v, *runs)
			}
			return err
		})
	})
}

// testPhantomDelete: records vanish from the range, also those read first,
// and also if another takes their place so that the count stays.
func testPhantomDelete(t *testing.T, s kv.Store) {
	reset := func() { put(t, s, "t/a", "1", "t/b", "1", "t/c", "1") }
	for _, c := range []struct {
		name string
		del  string
		want int64
	}{{"first", "t/a", 2}, {"middle", "t/b", 2}, {"last", "t/c", 2}} {
		t.Run(c.name, func(t *testing.T) {
			reset()
			phantom(t, s, "t/", "t0", func(txn kv.Txn) error { return txn.Delete([]byte(c.del)) }, c.want)
		})
	}
	t.Run("replaced", func(t *testing.T) {
		reset()
		meanwhile, runs := between(s, deadline(t), func(txn kv.Txn) error {
			return errors.Join(txn.Delete([]byte("t/b")), txn.Put([]byte("t/bb"), []byte("1")))
		})
		update(t, s, func(txn kv.Txn) error {
			got, err := list(txn, "t/", "t0")
			return errors.Join(err, meanwhile(), txn.Put([]byte("result"), fmt.Append(nil, got)))
		})
		view(t, s, func(txn kv.Txn) error {
			v, _, err := txn.Get([]byte("result"))
			if want := "[t/a=1 t/bb=1 t/c=1]"; string(v) != want || *runs != 2 {
				t.Errorf("read %q in %d runs, want %q in 2", v, *runs, want)
			}
			return err
		})
	})
	t.Run("own range deleted meanwhile", func(t *testing.T) {
		reset()
		meanwhile, _ := between(s, deadline(t), func(txn kv.Txn) error {
			return errors.Join(txn.Delete([]byte("t/a")), txn.Delete([]byte("t/b")), txn.Delete([]byte("t/c")), txn.Delete([]byte("t/bb")))
		})
		phantomEmpty := int64(-1)
		update(t, s, func(txn kv.Txn) error {
			got, err := list(txn, "t/", "t0")
			phantomEmpty = int64(len(got))
			return errors.Join(err, meanwhile(), putInt(txn, "result", phantomEmpty))
		})
		if phantomEmpty != 0 {
			t.Errorf("committed on %d records, all of which were gone", phantomEmpty)
		}
	})
}

// testPhantomUnderLoad: many take the next free seat; none may be taken twice.
func testPhantomUnderLoad(t *testing.T, s kv.Store) {
	const workers, seats = 4, 12
	ctx := deadline(t)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range seats {
				err := s.Update(ctx, func(txn kv.Txn) error {
					taken, err := list(txn, "t/seat/", "t/seat0")
					if err != nil {
						return err
					}
					return txn.Put(fmt.Appendf(nil, "t/seat/%04d", len(taken)), fmt.Appendf(nil, "%d-%d", w, i))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	view(t, s, func(txn kv.Txn) error {
		taken, err := list(txn, "t/seat/", "t/seat0")
		if len(taken) != workers*seats {
			t.Errorf("%d seats are taken after %d were given out", len(taken), workers*seats)
		}
		return err
	})
}
