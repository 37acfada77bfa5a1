package kvtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// ttl of the suite's leases; an engine may keep them somewhat longer.
const ttl = time.Second

func grant(t *testing.T, s kv.Store, ttl time.Duration) kv.Lease {
	t.Helper()
	l, err := s.Lease(deadline(t), ttl)
	if err != nil {
		t.Fatalf("Lease: %v", err)
	}
	return l
}

func putLeased(t *testing.T, s kv.Store, key, value string, l kv.Lease) {
	t.Helper()
	update(t, s, func(txn kv.Txn) error { return txn.PutLeased([]byte(key), []byte(value), l.ID()) })
}

func testLeaseExpires(t *testing.T, s kv.Store) {
	l, other := grant(t, s, ttl), grant(t, s, time.Hour)
	if l.ID() == other.ID() {
		t.Fatal("two leases with one id")
	}
	ch := watch(t, s, "t/", 0)
	granted := time.Now()
	putLeased(t, s, "t/a", "mine", l)
	putLeased(t, s, "t/b", "stays", other)
	put(t, s, "t/c", "stays")
	got, _ := next(t, ch, 4)
	if d := cmp.Diff([]string{"t/a=mine", "t/b=stays", "t/c=stays", "-t/a"}, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if lived := time.Since(granted); lived < ttl/2 {
		t.Errorf("a lease of %v ended after %v", ttl, lived)
	}
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/b=stays", "t/c=stays"}, got); d != "" {
			t.Errorf("records (-want +got):\n%s", d)
		}
		return err
	})
	ended(t, s, l)
	if err := other.Revoke(deadline(t)); err != nil {
		t.Error(err)
	}
}

// ended checks that nothing can be done with a lease any more.
func ended(t *testing.T, s kv.Store, l kv.Lease) {
	t.Helper()
	wantKind(t, l.KeepAlive(deadline(t)), xos.Expired)
	wantKind(t, s.Update(deadline(t), func(txn kv.Txn) error {
		return errors.Join(txn.Put([]byte("t/with"), nil), txn.PutLeased([]byte("t/late"), nil, l.ID()))
	}), xos.Expired)
	view(t, s, func(txn kv.Txn) error {
		_, late, err := txn.Get([]byte("t/late"))
		_, with, err2 := txn.Get([]byte("t/with"))
		if late || with {
			t.Error("a transaction with an ended lease wrote")
		}
		return errors.Join(err, err2)
	})
}

func testLeaseKept(t *testing.T, s kv.Store) {
	l := grant(t, s, ttl)
	putLeased(t, s, "t/a", "mine", l)
	for end := time.Now().Add(3 * ttl); time.Now().Before(end); {
		if err := l.KeepAlive(deadline(t)); err != nil {
			t.Fatalf("KeepAlive: %v", err)
		}
		pause, cancel := context.WithTimeout(t.Context(), ttl/5)
		<-pause.Done()
		cancel()
	}
	view(t, s, func(txn kv.Txn) error {
		_, ok, err := txn.Get([]byte("t/a"))
		if !ok {
			t.Error("the record of a kept lease is gone")
		}
		return err
	})
	if err := l.Revoke(deadline(t)); err != nil {
		t.Error(err)
	}
}

func testLeaseRevoked(t *testing.T, s kv.Store) {
	l := grant(t, s, time.Hour)
	putLeased(t, s, "t/a", "1", l)
	putLeased(t, s, "t/b", "2", l)
	for range 2 { // the second time there is nothing left to do
		if err := l.Revoke(deadline(t)); err != nil {
			t.Fatalf("Revoke: %v", err)
		}
	}
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if len(got) > 0 {
			t.Errorf("a revoked lease left %q", got)
		}
		return err
	})
	ended(t, s, l)
}

// testLeaseLeft: a record that was put anew is its new holder's.
func testLeaseLeft(t *testing.T, s kv.Store) {
	l, other := grant(t, s, time.Hour), grant(t, s, time.Hour)
	for _, k := range []string{"t/plain", "t/other", "t/reborn", "t/gone"} {
		putLeased(t, s, k, "1", l)
	}
	put(t, s, "t/plain", "2")
	putLeased(t, s, "t/other", "2", other)
	update(t, s, func(txn kv.Txn) error { return txn.Delete([]byte("t/reborn")) })
	put(t, s, "t/reborn", "2")
	if err := l.Revoke(deadline(t)); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/other=2", "t/plain=2", "t/reborn=2"}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		return err
	})
	if err := other.Revoke(deadline(t)); err != nil {
		t.Error(err)
	}
}

// testLeaseConflicts: a lease's end is a change like any other, so who has
// read the record, or its range, must read again.
func testLeaseConflicts(t *testing.T, s kv.Store) {
	byRange := func(txn kv.Txn) (int64, error) {
		got, err := list(txn, "t/", "t0")
		return int64(len(got)), err
	}
	byKey := func(txn kv.Txn) (int64, error) {
		_, ok, err := txn.Get([]byte("t/lock"))
		if ok {
			return 1, err
		}
		return 0, err
	}
	for _, c := range []struct {
		name         string
		read         func(kv.Txn) (int64, error)
		leasedBefore bool // else the record gets its lease, and loses it, meanwhile
	}{
		{"range", byRange, true},
		{"key", byKey, true},
		{"range, leased meanwhile", byRange, false},
		{"key, leased meanwhile", byKey, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := grant(t, s, time.Hour)
			put(t, s, "t/lock", "")
			if c.leasedBefore {
				putLeased(t, s, "t/lock", "holder", l)
			}
			runs := 0
			update(t, s, func(txn kv.Txn) error {
				runs++
				n, err := c.read(txn)
				if err == nil && runs == 1 {
					if !c.leasedBefore {
						putLeased(t, s, "t/lock", "holder", l)
					}
					err = l.Revoke(deadline(t))
				}
				return errors.Join(err, putInt(txn, "result", n))
			})
			view(t, s, func(txn kv.Txn) error {
				n, err := getInt(txn, "result")
				if n != 0 || runs != 2 {
					t.Errorf("counted %d holders in %d runs, want 0 in 2", n, runs)
				}
				return err
			})
		})
	}
}
