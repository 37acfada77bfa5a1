package client_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// memory is a metadata service and storage with one file of one object.
type memory struct {
	xfs.MRC
	xfs.OSD
	mu       sync.Mutex
	data     []byte
	attr     xfs.Attr
	reads    int
	arrived  chan struct{} // if set, a read has its data and waits
	proceed  chan struct{}
	failSync error
}

func (m *memory) opened() xfs.Opened {
	return xfs.Opened{Attr: m.attr,
		Layout:     xfs.Layout{ObjectSize: xfs.DefaultObjectSize, Replicas: []xfs.Replica{{Stripes: []xfs.Target{{OSD: "osd"}}}}},
		Capability: xfs.Capability{Rights: xfs.MayRead | xfs.MayWrite, Expires: time.Now().Add(time.Hour)}}
}

func (m *memory) Create(context.Context, xfs.RequestID, xfs.Inode, string, uint32, bool) (xfs.Opened, error) {
	m.attr = xfs.Attr{Inode: 7, Version: 1}
	return m.opened(), nil
}

func (m *memory) Flush(_ context.Context, _ xfs.RequestID, _ xfs.Inode, size int64, mtime time.Time) (xfs.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attr.Size, m.attr.Mtime = max(m.attr.Size, size), mtime
	m.attr.Version++
	return m.attr, nil
}

func (m *memory) Write(_ context.Context, _ xfs.Capability, _ uint64, off int64, data []byte, _ []uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := int(off) + len(data); end > len(m.data) {
		m.data = append(m.data, make([]byte, end-len(m.data))...)
	}
	copy(m.data[off:], data)
	return nil
}

func (m *memory) Read(_ context.Context, _ xfs.Capability, _ uint64, off int64, n int) ([]byte, []uint32, error) {
	m.mu.Lock()
	m.reads++
	data := bytes.Clone(m.data[min(int(off), len(m.data)):min(int(off)+n, len(m.data))])
	m.mu.Unlock()
	if m.arrived != nil {
		m.arrived <- struct{}{}
		<-m.proceed
	}
	return data, xfstest.Sums(off, data), nil
}

func (m *memory) Sync(context.Context, xfs.Capability) error { return m.failSync }
func (m *memory) Connections() uint64                        { return 1 }

// file makes a file of a client that works on m.
func (m *memory) file(t *testing.T, cfg client.Config) (*client.Client, *client.File) {
	c := client.New(cfg, client.Deps{MRC: m, Storage: func(xfs.Target) client.Storage { return m }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	_, f, err := c.Create(t.Context(), xfs.RootInode, "f", 0o600, true)
	if err != nil {
		t.Fatal(err)
	}
	return c, f
}

// TestReadMeetsSync: what is written and made durable while a read of the
// storage is under way is what the read gives, and it asks no second time, for
// it might have to for ever.
func TestReadMeetsSync(t *testing.T) {
	m := &memory{}
	_, f := m.file(t, client.Config{})
	ctx := t.Context()
	write := func(off int64, data []byte) {
		t.Helper()
		if _, err := f.WriteAt(ctx, data, off); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	model := bytes.Repeat([]byte("old."), 100_000)
	write(0, model)
	m.arrived, m.proceed = make(chan struct{}), make(chan struct{})
	got := make([]byte, 200_000)
	read := make(chan error)
	go func() {
		_, err := f.ReadAt(ctx, got, 1000)
		read <- err
	}()
	<-m.arrived
	for round := range 50 {
		data := bytes.Repeat([]byte{'a' + byte(round%26)}, 10+round*100)
		off := 500 + round*4001%200_000
		write(int64(off), data)
		copy(model[off:], data)
	}
	m.proceed <- struct{}{}
	select {
	case err := <-read:
		if err != nil {
			t.Fatal(err)
		}
	case <-m.arrived:
		t.Fatal("the read asks again")
	}
	if !bytes.Equal(got, model[1000:201_000]) {
		t.Error("the read gave what was older than an earlier write")
	}
}

// TestSyncFailsForGood: data that can never be made durable is given up and
// said to be lost; the memory it took is free for others.
func TestSyncFailsForGood(t *testing.T) {
	m := &memory{failSync: xos.Errorf(xos.Internal, "the disk is broken")}
	c, f := m.file(t, client.Config{Buffers: 2 << 20, WriteBack: 20 * time.Millisecond})
	_, other, err := c.Create(t.Context(), xfs.RootInode, "f", 0o600, true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 16 {
			f.WriteAt(t.Context(), make([]byte, 1000), int64(i)<<20)
		}
		done <- f.Sync(t.Context())
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("lost data is said to be durable")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a writer waits for ever")
	}
	if err := other.Flush(t.Context()); !xos.Is(err, xos.Internal) {
		t.Errorf("another user of the file is told %v", err)
	}
}
