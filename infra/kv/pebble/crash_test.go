package pebble_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/kvtest"
	"github.com/xtreemos/xos/infra/kv/pebble"
)

// machine is a store on a disk whose power can be cut: what was not synced is
// then there or not, block by block, as chance has it.
type machine struct {
	disk  *vfs.MemFS
	store kv.Store
	rng   *rand.Rand
}

func (m *machine) Store() kv.Store { return m.store }

func (m *machine) start(t *testing.T) {
	t.Helper()
	// A sync that takes a while, as real ones do, gives a crash and a reader
	// time to get in between.
	slow := errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			time.Sleep(2 * time.Millisecond)
		}
		return nil
	})
	s, err := pebble.OpenConfig(pebble.Config{Dir: "kv", FS: errorfs.Wrap(m.disk, slow)})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

func (m *machine) Crash(t *testing.T) {
	t.Helper()
	after := m.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: m.rng.IntN(101), RNG: m.rng})
	old := m.store
	m.disk = after
	m.start(t)
	if err := old.Close(); err != nil { // it writes to the disk that is gone
		t.Errorf("Close: %v", err)
	}
}

func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &machine{disk: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 0))}
	m.start(t)
	defer func() {
		if err := m.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	kvtest.RunCrash(t, m, 30)
}

// TestFailedWrite: after a failed write or fsync nothing is acknowledged,
// shown or accepted any more.
func TestFailedWrite(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []errorfs.OpKind
	}{
		{"sync", []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}},
		{"write", []errorfs.OpKind{errorfs.OpFileWrite}},
	} {
		t.Run(c.name, func(t *testing.T) { testFailedWrite(t, c.ops) })
	}
}

func testFailedWrite(t *testing.T, ops []errorfs.OpKind) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && slices.Contains(ops, op.Kind) {
			return syscall.ENOSPC
		}
		return nil
	}))
	s, err := pebble.OpenConfig(pebble.Config{Dir: "kv", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	put := func(n int) error {
		return s.Update(t.Context(), func(txn kv.Txn) error { return txn.Put(fmt.Append(nil, n), nil) })
	}
	if err := put(1); err != nil {
		t.Fatal(err)
	}
	watch, err := s.Watch(t.Context(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := put(2); !xos.Is(err, xos.Unavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("an Update whose record did not reach the disk gives %v", err)
	}
	for e := range watch {
		t.Errorf("the lost write of %s was shown to a watcher", e.Key)
	}
	broken.Store(false)
	if err := put(3); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a later Update gives %v", err)
	}
	if err := s.View(t.Context(), func(kv.Txn) error { return nil }); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a later View gives %v", err)
	}
}
