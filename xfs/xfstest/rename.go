package xfstest

import (
	"sync"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// rename moves between two directories of a test's choice.
func (u user) rename(from xfs.Inode, name string, to xfs.Inode, newName string, flags xfs.RenameFlags) error {
	return u.Rename(u.t.Context(), next(), from, name, to, newName, flags, false)
}

func testRename(t *testing.T, u user) {
	d, e := u.dir(xfs.RootInode, "d"), u.dir(xfs.RootInode, "e")
	f, g := u.file(d, "f"), u.file(e, "g")
	u.must(u.rename(d, "f", d, "f2", 0))
	u.must(u.rename(d, "f2", e, "f", 0))
	u.wantTree(map[string]xfs.Inode{"d": d, "e": e, "e/f": f, "e/g": g})

	u.fails(u.rename(e, "f", e, "g", xfs.RenameNoReplace), xos.Exists, nil)
	u.fails(u.rename(e, "none", e, "x", 0), xos.NotFound, nil)
	u.fails(u.rename(e, "f", xfs.RootInode, "d", 0), xos.Invalid, xfs.ErrIsDir)
	u.fails(u.rename(xfs.RootInode, "d", e, "f", 0), xos.Invalid, xfs.ErrNotDir)
	u.fails(u.rename(xfs.RootInode, "d", xfs.RootInode, "e", 0), xos.Conflict, xfs.ErrNotEmpty)
	u.fails(u.rename(e, "f", e, "a/b", 0), xos.Invalid, nil)
	u.fails(u.rename(e, "f", e, "x", 1<<5), xos.Invalid, nil)
	u.fails(u.rename(e, "f", e, "x", xfs.RenameNoReplace|xfs.RenameExchange), xos.Invalid, nil)
	u.wantTree(map[string]xfs.Inode{"d": d, "e": e, "e/f": f, "e/g": g})

	u.must(u.rename(e, "f", e, "g", 0)) // over a file
	_, err := u.Getattr(t.Context(), g)
	u.fails(err, xos.NotFound, xfs.ErrStale)
	u.must(u.rename(xfs.RootInode, "e", xfs.RootInode, "d", 0)) // over an empty directory
	u.wantTree(map[string]xfs.Inode{"d": e, "d/g": f})

	_, err = u.Link(t.Context(), next(), f, e, "h")
	u.must(err)
	u.must(u.rename(e, "g", e, "h", 0)) // two names of one file: nothing is done
	u.wantTree(map[string]xfs.Inode{"d": e, "d/g": f, "d/h": f})

	// One that is renamed over, and kept.
	k := u.file(e, "k")
	u.must(u.Rename(t.Context(), next(), e, "h", e, "k", 0, true))
	if a := u.attr(k); a.Nlink != 0 {
		t.Errorf("kept file: %+v", a)
	}
	u.must(u.Release(t.Context(), next(), k))
	_, err = u.Getattr(t.Context(), k)
	u.fails(err, xos.NotFound, xfs.ErrStale)
}

func testExchange(t *testing.T, u user) {
	d := u.dir(xfs.RootInode, "d")
	f, sub := u.file(xfs.RootInode, "f"), u.dir(d, "sub")
	in := u.file(sub, "in")
	u.must(u.rename(xfs.RootInode, "f", d, "sub", xfs.RenameExchange))
	u.wantTree(map[string]xfs.Inode{"d": d, "d/sub": f, "f": sub, "f/in": in})
	u.fails(u.rename(d, "sub", xfs.RootInode, "none", xfs.RenameExchange), xos.NotFound, nil)
	// The directory knows its new parent: it may not be moved below itself.
	u.fails(u.rename(xfs.RootInode, "f", sub, "x", 0), xos.Invalid, nil)
	u.must(u.rename(xfs.RootInode, "d", sub, "d", 0))
	u.fails(u.rename(xfs.RootInode, "f", d, "x", 0), xos.Invalid, nil)
}

func testLoops(t *testing.T, u user) {
	a := u.dir(xfs.RootInode, "a")
	b := u.dir(a, "b")
	c := u.dir(b, "c")
	u.fails(u.rename(xfs.RootInode, "a", a, "x", 0), xos.Invalid, nil)
	u.fails(u.rename(xfs.RootInode, "a", c, "x", 0), xos.Invalid, nil)
	u.fails(u.rename(xfs.RootInode, "a", b, "c", xfs.RenameExchange), xos.Invalid, nil)
	u.fails(u.rename(b, "c", xfs.RootInode, "a", xfs.RenameExchange), xos.Invalid, nil)
	u.wantTree(map[string]xfs.Inode{"a": a, "a/b": b, "a/b/c": c})

	// Two moves that are right by themselves make no loop together.
	for range 10 {
		p, q := u.dir(xfs.RootInode, "p"), u.dir(xfs.RootInode, "q")
		var errs [2]error
		var wg sync.WaitGroup
		wg.Go(func() { errs[0] = u.rename(xfs.RootInode, "p", q, "p", 0) })
		wg.Go(func() { errs[1] = u.rename(xfs.RootInode, "q", p, "q", 0) })
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("moving each into the other: %v, %v", errs[0], errs[1])
		}
		outer, inner, inode := "q", "p", q
		if errs[0] != nil {
			outer, inner, inode = "p", "q", p
		}
		u.must(u.Rmdir(t.Context(), next(), inode, inner))
		u.must(u.Rmdir(t.Context(), next(), xfs.RootInode, outer))
	}
}

// testRepeat: a request that is repeated, because its answer was lost, gets
// the same answer and does nothing more.
func testRepeat(t *testing.T, u user) {
	ctx := t.Context()
	req := next()
	o, err := u.Create(ctx, req, xfs.RootInode, "f", 0o600, true)
	u.must(err)
	again, err := u.Create(ctx, req, xfs.RootInode, "f", 0o600, true)
	u.must(err)
	if o.Attr.Inode != again.Attr.Inode {
		t.Errorf("the repeated request made inode %d, then %d", o.Attr.Inode, again.Attr.Inode)
	}
	// Its number serves no other request, and certainly not to crash anybody.
	_, err = u.Mkdir(ctx, req, xfs.RootInode, "d", 0o700)
	u.fails(err, xos.Invalid, nil)

	req = next()
	u.must(u.Rename(ctx, req, xfs.RootInode, "f", xfs.RootInode, "g", 0, false))
	other := u.file(xfs.RootInode, "f")
	u.must(u.Rename(ctx, req, xfs.RootInode, "f", xfs.RootInode, "g", 0, false))
	u.wantTree(map[string]xfs.Inode{"f": other, "g": o.Attr.Inode})

	req = next()
	u.must(u.Unlink(ctx, req, xfs.RootInode, "f", false))
	other = u.file(xfs.RootInode, "f")
	u.must(u.Unlink(ctx, req, xfs.RootInode, "f", false))
	u.wantTree(map[string]xfs.Inode{"f": other, "g": o.Attr.Inode})

	// One that failed is no answer to keep.
	req = next()
	_, err = u.Mkdir(ctx, req, xfs.RootInode, "f", 0o700)
	u.fails(err, xos.Exists, nil)
	u.must(u.Unlink(ctx, next(), xfs.RootInode, "f", false))
	_, err = u.Mkdir(ctx, req, xfs.RootInode, "f", 0o700)
	u.must(err)
}
