package pebble_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
)

func put(t testing.TB, s kv.Store, key string, value []byte) {
	t.Helper()
	if err := s.Update(t.Context(), func(txn kv.Txn) error { return txn.Put([]byte(key), value) }); err != nil {
		t.Fatal(err)
	}
}

func revision(t *testing.T, s kv.Store) (rev kv.Revision) {
	t.Helper()
	if err := s.View(t.Context(), func(txn kv.Txn) error { rev = txn.Revision(); return nil }); err != nil {
		t.Fatal(err)
	}
	return rev
}

func has(t *testing.T, s kv.Store, key string) (ok bool) {
	t.Helper()
	if err := s.View(t.Context(), func(txn kv.Txn) (err error) {
		_, ok, err = txn.Get([]byte(key))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return ok
}

// TestReopen, on a real disk: records, the revision and leases stay; a lease
// has its whole ttl again and then ends.
func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "kv")
	var clock struct {
		sync.Mutex
		now time.Time
	}
	clock.now = time.Unix(1_000_000, 0)
	open := func() kv.Store {
		s, err := pebble.OpenConfig(pebble.Config{Dir: dir, Now: func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return clock.now
		}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	advance := func(d time.Duration) {
		clock.Lock()
		clock.now = clock.now.Add(d)
		clock.Unlock()
	}
	shut := func(s kv.Store) {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open()
	put(t, s, "a", []byte("1"))
	l, err := s.Lease(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(txn kv.Txn) error { return txn.PutLeased([]byte("leased"), nil, l.ID()) }); err != nil {
		t.Fatal(err)
	}
	rev := revision(t, s)
	advance(50 * time.Minute)
	shut(s)
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v; want mode 0700", fi.Mode(), err)
	}

	s = open()
	if got := revision(t, s); got != rev {
		t.Errorf("revision %d after the new start, %d before", got, rev)
	}
	if _, err := s.Watch(t.Context(), nil, rev-1); !xos.Is(err, xos.Expired) {
		t.Errorf("a watch of what the last process did: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ch, err := s.Watch(ctx, nil, rev)
	if err != nil {
		t.Fatal(err)
	}
	advance(50 * time.Minute)
	if !has(t, s, "a") || !has(t, s, "leased") {
		t.Error("a record is gone")
	}
	put(t, s, "b", nil)
	if e := <-ch; string(e.Key) != "b" || e.Revision <= rev {
		t.Errorf("got %+v", e)
	}
	advance(11 * time.Minute)
	if e := <-ch; string(e.Key) != "leased" || !e.Deleted {
		t.Errorf("got %+v", e)
	}
	shut(s)
	s = open()
	if has(t, s, "leased") {
		t.Error("the record of an ended lease came back")
	}
	shut(s)
	if err := s.View(t.Context(), func(kv.Txn) error { return nil }); !xos.Is(err, xos.Unavailable) {
		t.Errorf("View after Close: %v", err)
	}
}

// TestHistory: who falls too far behind is told so.
func TestHistory(t *testing.T) {
	s, err := pebble.OpenConfig(pebble.Config{Dir: "kv", FS: vfs.NewMem(), HistoryBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old := revision(t, s)
	idle, err := s.Watch(t.Context(), nil, old)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	if err := s.Update(t.Context(), func(txn kv.Txn) error {
		if runs++; runs == 1 {
			for i := range 2000 {
				put(t, s, fmt.Sprint(i), bytes.Repeat([]byte("x"), 200))
			}
		}
		_, _, err := txn.Get([]byte("never written"))
		if err != nil {
			return err
		}
		return txn.Put([]byte("late"), nil)
	}); err != nil || runs != 2 {
		t.Errorf("a transaction older than the history: %d runs, want 2; %v", runs, err)
	}
	if _, err := s.Watch(t.Context(), nil, old); !xos.Is(err, xos.Expired) {
		t.Errorf("Watch from revision %d: %v", old, err)
	}
	n, last := 0, old
	for e := range idle { // ends by itself
		if e.Revision != last+1 {
			t.Fatalf("revision %d after %d", e.Revision, last)
		}
		n, last = n+1, e.Revision
	}
	if n >= 2000 {
		t.Errorf("all %d events came, though the history is short", n)
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, err := pebble.OpenConfig(pebble.Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			value := make([]byte, 128)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := w; i < b.N; i += writers {
						key := fmt.Appendf(nil, "%d/%d", w, i)
						if err := s.Update(b.Context(), func(txn kv.Txn) error {
							if _, _, err := txn.Get(key); err != nil {
								return err
							}
							return txn.Put(key, value)
						}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkView(b *testing.B) {
	s, err := pebble.OpenConfig(pebble.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	put(b, s, "a", make([]byte, 128))
	b.ResetTimer()
	for range b.N {
		if err := s.View(b.Context(), func(txn kv.Txn) error {
			_, _, err := txn.Get([]byte("a"))
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
