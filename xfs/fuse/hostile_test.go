package fuse_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// TestRootHostileClient speaks to the services of a mount as a holder of a
// valid certificate does who keeps to no rule: another's files stay hers.
func TestRootHostileClient(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	m := g.Mount("node1", client.Config{})
	secret := filepath.Join(m.Dir(), "secret")
	want := fill(200_000, "alice", 1)
	must(t, os.WriteFile(secret, want, 0o600))
	ctx := t.Context()
	alice := g.Remote("alice@physics", "node1", xfstest.Volume)
	bob := g.Remote("bob@physics", "node2", "home-physics-bob")
	attr, err := alice.MRC.Lookup(ctx, xfs.RootInode, "secret")
	must(t, err)
	hers, err := alice.MRC.Open(ctx, attr.Inode, xfs.MayRead|xfs.MayWrite)
	must(t, err)
	his, err := bob.MRC.Create(ctx, xfs.RequestID{Client: 1, Number: 1}, xfs.RootInode, "f", 0o600, true)
	must(t, err)
	osd := bob.Storage(his.Layout.Replicas[0].Stripes[0])
	alicesOSD := alice.Storage(hers.Layout.Replicas[0].Stripes[0])

	for name, c := range map[string]struct {
		osd    xfs.OSD
		change func(c *xfs.Capability)
		kind   xos.Kind
	}{
		"hers, from his machine":          {osd, func(c *xfs.Capability) { *c = hers.Capability }, xos.Permission},
		"hers, said to be his machine's":  {osd, func(c *xfs.Capability) { *c = hers.Capability; c.Node = "node2" }, xos.Permission},
		"his, for her file":               {osd, func(c *xfs.Capability) { c.File = hers.Capability.File }, xos.Permission},
		"his, for her volume":             {osd, func(c *xfs.Capability) { c.File.Volume = xfstest.Volume }, xos.Permission},
		"his, to delete":                  {osd, func(c *xfs.Capability) { c.Rights |= xfs.MayDelete }, xos.Permission},
		"his, for longer":                 {osd, func(c *xfs.Capability) { c.Expires = c.Expires.Add(time.Hour) }, xos.Permission},
		"his, of another layout":          {osd, func(c *xfs.Capability) { c.Epoch++ }, xos.Permission},
		"his, with her signature":         {osd, func(c *xfs.Capability) { c.Signature = hers.Capability.Signature }, xos.Permission},
		"his, with no signature":          {osd, func(c *xfs.Capability) { c.Signature = nil }, xos.Permission},
		"hers, for an inode behind all":   {alicesOSD, func(c *xfs.Capability) { *c = hers.Capability; c.File.Inode = math.MaxUint64 }, xos.Permission},
		"hers, for a volume with a slash": {alicesOSD, func(c *xfs.Capability) { *c = hers.Capability; c.File.Volume = "../x" }, xos.Permission},
	} {
		forged := his.Capability
		c.change(&forged)
		data := []byte("overwritten")
		_, _, rerr := c.osd.Read(ctx, forged, 0, 0, 100)
		for op, err := range map[string]error{
			"read":     rerr,
			"write":    c.osd.Write(ctx, forged, 0, 0, data, xfstest.Sums(0, data)),
			"truncate": c.osd.Truncate(ctx, forged, 0, xfs.DefaultObjectSize),
			"sync":     c.osd.Sync(ctx, forged),
			"delete":   c.osd.Delete(ctx, forged),
		} {
			if !xos.Is(err, c.kind) {
				t.Errorf("%s with a capability %s: %v, want %v", op, name, err, c.kind)
			}
		}
	}
	if _, err := g.Remote("bob@physics", "node2", xfstest.Volume).MRC.Getattr(ctx, attr.Inode); !xos.Is(err, xos.NotFound) {
		t.Errorf("another's volume: %v", err)
	}
	extremes(t, alicesOSD, hers.Capability, alice.MRC, attr.Inode)
	f, err := os.Open(secret)
	must(t, err)
	defer f.Close()
	must(t, dropPages(f))
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("her file was changed (%v)", err)
	}
	// The services serve on.
	must(t, store(filepath.Join(m.Dir(), "after"), want))
	wantFile(t, filepath.Join(m.Dir(), "after"), want)
}

// extremes uses sizes and offsets near the ends of their types.
func extremes(t *testing.T, osd xfs.OSD, c xfs.Capability, mrc xfs.MRC, ino xfs.Inode) {
	t.Helper()
	ctx := t.Context()
	data := []byte("far")
	for _, off := range []int64{math.MinInt64, -1, 1 << 31, 1 << 62, math.MaxInt64 - 2, math.MaxInt64} {
		if err := osd.Write(ctx, c, 0, off, data, xfstest.Sums(0, data)); !xos.Is(err, xos.Invalid) {
			t.Errorf("writing at %d: %v", off, err)
		}
		if _, _, err := osd.Read(ctx, c, math.MaxUint64, off, frame.MaxBulk); !xos.Is(err, xos.Invalid) {
			t.Errorf("reading at %d: %v", off, err)
		}
	}
	for _, size := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		if err := osd.Truncate(ctx, c, math.MaxInt64, size); !xos.Is(err, xos.Invalid) {
			t.Errorf("objects of %d bytes: %v", size, err)
		}
	}
	must(t, osd.Truncate(ctx, c, math.MaxInt64, xfs.DefaultObjectSize)) // nothing is behind it
	if n, _, err := osd.Read(ctx, c, math.MaxUint64, 0, 10); err != nil || len(n) != 0 {
		t.Errorf("the last object: %d bytes, %v", len(n), err)
	}
	for i, size := range []int64{math.MinInt64, -1} {
		if _, err := mrc.Flush(ctx, xfs.RequestID{Client: 9, Number: uint64(i)}, ino, size, time.Now()); err == nil {
			t.Errorf("a file of %d bytes", size)
		}
	}
}
