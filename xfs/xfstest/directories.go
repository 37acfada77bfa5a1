package xfstest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

func testDirectories(t *testing.T, u user) {
	ctx := t.Context()
	d := u.dir(xfs.RootInode, "d")
	f := u.file(d, "f")
	u.fails(u.Rmdir(ctx, next(), xfs.RootInode, "d"), xos.Conflict, xfs.ErrNotEmpty)
	u.fails(u.Rmdir(ctx, next(), d, "f"), xos.Invalid, xfs.ErrNotDir)
	u.fails(u.Unlink(ctx, next(), xfs.RootInode, "d", false), xos.Invalid, xfs.ErrIsDir)
	u.fails(u.Rmdir(ctx, next(), xfs.RootInode, "none"), xos.NotFound, nil)
	u.wantTree(map[string]xfs.Inode{"d": d, "d/f": f})
	u.must(u.Unlink(ctx, next(), d, "f", false))
	u.must(u.Rmdir(ctx, next(), xfs.RootInode, "d"))
	_, err := u.Create(ctx, next(), d, "late", 0o600, true)
	u.fails(err, xos.NotFound, xfs.ErrStale)
	u.wantTree(map[string]xfs.Inode{})
}

func testReaddir(t *testing.T, u user) {
	ctx := t.Context()
	want := map[string]xfs.Inode{}
	for i := range 250 {
		name := fmt.Sprintf("entry %d", i)
		want[name] = u.file(xfs.RootInode, name)
	}
	for _, page := range []int{1, 7, 100, 1000} {
		got := map[string]xfs.Inode{}
		for after, n := uint64(0), 0; ; n++ {
			list, done, err := u.MRC.Readdir(ctx, xfs.RootInode, after, page)
			u.must(err)
			for _, e := range list {
				if _, twice := got[e.Name]; twice {
					t.Errorf("%q came twice", e.Name)
				}
				got[e.Name], after = e.Attr.Inode, e.Cookie
			}
			if done || n > len(want) {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", page, diff)
		}
	}
	_, _, err := u.MRC.Readdir(ctx, want["entry 0"], 0, 10)
	u.fails(err, xos.Invalid, xfs.ErrNotDir)
	_, _, err = u.MRC.Readdir(ctx, xfs.RootInode, 0, 0)
	u.fails(err, xos.Invalid, nil)
}

// testParallel has many clients work in one directory: nothing is lost, and
// of those who want one name exactly one gets it.
func testParallel(t *testing.T, u user) {
	ctx := context.WithoutCancel(t.Context())
	var wg sync.WaitGroup
	var won atomic.Int32
	var inodes sync.Map
	for i := range 16 {
		wg.Go(func() {
			for n := range 10 {
				o, err := u.Create(ctx, next(), xfs.RootInode, fmt.Sprintf("own %d %d", i, n), 0o600, true)
				if err != nil {
					t.Error(err)
				}
				if _, twice := inodes.LoadOrStore(o.Attr.Inode, true); twice {
					t.Errorf("inode %d was given out twice", o.Attr.Inode)
				}
			}
			switch _, err := u.Create(ctx, next(), xfs.RootInode, "one", 0o600, true); {
			case err == nil:
				won.Add(1)
			case !xos.Is(err, xos.Exists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(u.tree(xfs.RootInode, "")); n != 161 || won.Load() != 1 {
		t.Errorf("%d names, want 161; %d made the same name", n, won.Load())
	}
}
