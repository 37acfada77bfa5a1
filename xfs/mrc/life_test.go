package mrc_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/mrc"
)

func req(n uint64) xfs.RequestID { return xfs.RequestID{Client: 7, Number: n} }

// TestRepeatAfterRestart: an answer that was lost with the service is given
// again by the next one, and an inode number is never given twice.
func TestRepeatAfterRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kv")
	open := func() (kv.Store, xfs.MRC, *mrc.Service) {
		db, err := pebble.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := service(t, db, &clock{})
		return db, s.View(home, identity(t, "alice@physics")), s
	}
	db, m, s := open()
	first, err := m.Create(t.Context(), req(1), xfs.RootInode, "f", 0o600, true)
	if err != nil {
		t.Fatal(err)
	}
	key := s.Key()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, m, s = open()
	defer db.Close()
	again, err := m.Create(t.Context(), req(1), xfs.RootInode, "f", 0o600, true)
	if err != nil || again.Attr.Inode != first.Attr.Inode {
		t.Fatalf("inode %d, then %d, %v", first.Attr.Inode, again.Attr.Inode, err)
	}
	other, err := m.Create(t.Context(), req(2), xfs.RootInode, "g", 0o600, true)
	if err != nil || other.Attr.Inode <= first.Attr.Inode {
		t.Errorf("a new file has inode %d after %d, %v", other.Attr.Inode, first.Attr.Inode, err)
	}
	if !key.Equal(s.Key()) {
		t.Error("a restart changed the key of capabilities")
	}
}

// device is an OSD of which only Delete is asked.
type device struct {
	xfs.OSD
	t      *testing.T
	volume *mrc.Service

	mu      sync.Mutex
	away    bool
	deleted map[xfs.Inode]bool
}

func (d *device) Delete(_ context.Context, c xfs.Capability) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return xos.Errorf(xos.Unavailable, "away")
	}
	if err := frame.Verify(&c, d.volume.Key(), time.Now().Add(-time.Second)); err != nil || c.Rights != xfs.MayDelete || c.Node != "core" {
		d.t.Errorf("capability %+v: %v", c, err)
	}
	d.deleted[c.File.Inode] = true
	return nil
}

func (d *device) set(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

// wait waits until so many files' data was deleted.
func (d *device) wait(n int) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		d.mu.Lock()
		got := len(d.deleted)
		d.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) || got > n {
			d.t.Fatalf("the data of %d files was deleted, want %d", got, n)
		}
	}
}

// purge runs the purger on a device until the function given is called.
func purge(t *testing.T, s *mrc.Service, d *device) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Purge(ctx, "core", func(context.Context, xfs.Target) (xfs.OSD, func(), error) { return d, func() {}, nil })
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestPurge: the data of what is removed is deleted, though the storage be
// away at first and the service end meanwhile.
func TestPurge(t *testing.T) {
	db := store(t)
	s := service(t, db, &clock{})
	m := s.View(home, identity(t, "alice@physics"))
	d := &device{t: t, volume: s, away: true, deleted: map[xfs.Inode]bool{}}
	stop := purge(t, s, d)
	const files = 600
	for i := range files {
		name := fmt.Sprint(i)
		if _, err := m.Create(t.Context(), xfs.RequestID{}, xfs.RootInode, name, 0o600, true); err != nil {
			t.Fatal(err)
		}
		if err := m.Unlink(t.Context(), xfs.RequestID{}, xfs.RootInode, name, false); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := m.Create(t.Context(), xfs.RequestID{}, xfs.RootInode, "kept", 0o600, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unlink(t.Context(), xfs.RequestID{}, xfs.RootInode, "kept", true); err != nil {
		t.Fatal(err)
	}
	stop()
	d.set(false)
	s = service(t, db, &clock{})
	stop = purge(t, s, d)
	defer func() { stop() }()
	d.wait(files)
	m = s.View(home, identity(t, "alice@physics"))
	if err := m.Release(t.Context(), xfs.RequestID{}, kept.Attr.Inode); err != nil {
		t.Fatal(err)
	}
	d.wait(files + 1)
	stop()
	d.deleted = map[xfs.Inode]bool{}
	stop = purge(t, s, d) // everything was taken off the queue
	if _, err := m.Create(t.Context(), xfs.RequestID{}, xfs.RootInode, "last", 0o600, true); err != nil {
		t.Fatal(err)
	}
	if err := m.Unlink(t.Context(), xfs.RequestID{}, xfs.RootInode, "last", false); err != nil {
		t.Fatal(err)
	}
	d.wait(1)
}

// TestOrphans: a file whose keeper never came back goes after a day; one that
// is still used stays.
func TestOrphans(t *testing.T) {
	c := &clock{}
	db := store(t)
	s := service(t, db, c)
	m := s.View(home, identity(t, "alice@physics"))
	var inodes []xfs.Inode
	for _, name := range []string{"used", "forgotten"} {
		o, err := m.Create(t.Context(), req(uint64(len(inodes)+1)), xfs.RootInode, name, 0o600, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Unlink(t.Context(), xfs.RequestID{}, xfs.RootInode, name, true); err != nil {
			t.Fatal(err)
		}
		inodes = append(inodes, o.Attr.Inode)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), inodes[1], xfs.MayRead); err != nil {
		t.Fatalf("swept at once: %v", err)
	}
	c.ahead.Add(int64(20 * time.Hour))
	if _, err := m.Open(t.Context(), inodes[0], xfs.MayRead); err != nil {
		t.Fatal(err)
	}
	c.ahead.Add(int64(20 * time.Hour))
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Getattr(t.Context(), inodes[0]); err != nil {
		t.Errorf("one in use: %v", err)
	}
	if _, err := m.Getattr(t.Context(), inodes[1]); !errors.Is(err, xfs.ErrStale) {
		t.Errorf("a forgotten one: %v", err)
	}
	// Old answers are forgotten too: the number is as good as new.
	o, err := m.Create(t.Context(), req(1), xfs.RootInode, "used", 0o600, true)
	if err != nil || o.Attr.Inode == inodes[0] {
		t.Errorf("a request of two days ago: inode %d, %v", o.Attr.Inode, err)
	}
}
