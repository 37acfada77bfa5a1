// Package xfstest holds the suites that every implementation of the file
// system's contracts passes, in process and over the wire.
package xfstest

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Type bits of st_mode.
const (
	typeMask    = 0o170000
	typeFile    = 0o100000
	typeDir     = 0o040000
	typeSymlink = 0o120000
	typeFIFO    = 0o010000
	typeChar    = 0o020000
)

// RunMRC runs the suite of xfs.MRC. open gives an empty volume as its owner
// sees it, a new one at each call.
func RunMRC(t *testing.T, open func(t *testing.T) xfs.MRC) {
	for name, f := range map[string]func(*testing.T, user){
		"Create":      testCreate,
		"Names":       testNames,
		"Kinds":       testKinds,
		"Directories": testDirectories,
		"Links":       testLinks,
		"Unlink":      testUnlink,
		"Attributes":  testAttributes,
		"DirTimes":    testDirectoryTimes,
		"Flush":       testFlush,
		"Xattrs":      testXattrs,
		"Readdir":     testReaddir,
		"Rename":      testRename,
		"Exchange":    testExchange,
		"Loops":       testLoops,
		"Repeat":      testRepeat,
		"Parallel":    testParallel,
		"Capability":  testCapability,
		"Storm":       testStorm,
	} {
		t.Run(name, func(t *testing.T) { f(t, user{t, open(t)}) })
	}
}

// user is a volume with the calls that a test needs no error of.
type user struct {
	t *testing.T
	xfs.MRC
}

var requests atomic.Uint64

// next gives a request number that nobody used.
func next() xfs.RequestID { return xfs.RequestID{Client: 1 << 63, Number: requests.Add(1)} }

func (u user) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

// fails checks an error's kind and, if want is a distinguished error, that it is
// this one.
func (u user) fails(err error, kind xos.Kind, want error) {
	u.t.Helper()
	if !xos.Is(err, kind) || want != nil && !errors.Is(err, want) {
		u.t.Errorf("got error %v, want kind %q, %v", err, kind, want)
	}
}

func (u user) file(parent xfs.Inode, name string) xfs.Inode {
	u.t.Helper()
	o, err := u.Create(u.t.Context(), next(), parent, name, 0o644, true)
	u.must(err)
	return o.Attr.Inode
}

func (u user) dir(parent xfs.Inode, name string) xfs.Inode {
	u.t.Helper()
	a, err := u.Mkdir(u.t.Context(), next(), parent, name, 0o755)
	u.must(err)
	return a.Inode
}

func (u user) attr(ino xfs.Inode) xfs.Attr {
	u.t.Helper()
	a, err := u.Getattr(u.t.Context(), ino)
	u.must(err)
	return a
}

// tree lists all names below a directory as path=inode.
func (u user) tree(ino xfs.Inode, path string) map[string]xfs.Inode {
	u.t.Helper()
	all := map[string]xfs.Inode{}
	for after := uint64(0); ; {
		list, done, err := u.MRC.Readdir(u.t.Context(), ino, after, 100)
		u.must(err)
		for _, e := range list {
			all[path+e.Name] = e.Attr.Inode
			if e.Attr.Mode&typeMask == typeDir {
				for p, i := range u.tree(e.Attr.Inode, path+e.Name+"/") {
					all[p] = i
				}
			}
			after = e.Cookie
		}
		if done {
			return all
		}
	}
}

func (u user) wantTree(want map[string]xfs.Inode) {
	u.t.Helper()
	if diff := cmp.Diff(want, u.tree(xfs.RootInode, "")); diff != "" {
		u.t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func testCreate(t *testing.T, u user) {
	ctx := t.Context()
	o, err := u.Create(ctx, next(), xfs.RootInode, "a", 0o640, true)
	u.must(err)
	if o.Attr.Mode != typeFile|0o640 || o.Attr.Nlink != 1 || o.Attr.Size != 0 || o.Attr.Owner == "" || o.Attr.Inode <= xfs.RootInode {
		t.Errorf("new file: %+v", o.Attr)
	}
	if len(o.Layout.Replicas) != 1 || o.Layout.ObjectSize < xfs.BlockSize || o.Layout.Replicas[0].Stripes[0].Address == "" {
		t.Errorf("layout: %+v", o.Layout)
	}
	_, err = u.Create(ctx, next(), xfs.RootInode, "a", 0o600, true)
	u.fails(err, xos.Exists, nil)
	again, err := u.Create(ctx, next(), xfs.RootInode, "a", 0o600, false)
	u.must(err)
	if diff := cmp.Diff(o.Attr, again.Attr); diff != "" {
		t.Errorf("opened again (-first +second):\n%s", diff)
	}
	found, err := u.Lookup(ctx, xfs.RootInode, "a")
	u.must(err)
	if diff := cmp.Diff(o.Attr, found); diff != "" {
		t.Errorf("looked up (-created +found):\n%s", diff)
	}
	u.dir(xfs.RootInode, "d")
	_, err = u.Create(ctx, next(), xfs.RootInode, "d", 0o600, false)
	u.fails(err, xos.Invalid, xfs.ErrIsDir)
	_, err = u.Create(ctx, next(), o.Attr.Inode, "x", 0o600, true)
	u.fails(err, xos.Invalid, xfs.ErrNotDir)
	_, err = u.Create(ctx, next(), 1<<40, "x", 0o600, true)
	u.fails(err, xos.NotFound, xfs.ErrStale)
	_, err = u.Lookup(ctx, xfs.RootInode, "none")
	u.fails(err, xos.NotFound, nil)
	if errors.Is(err, xfs.ErrStale) {
		t.Error("a missing name is said to be a stale file")
	}
}

func testNames(t *testing.T, u user) {
	ctx := t.Context()
	for name, want := range map[string]error{
		"": nil, ".": nil, "..": nil, "a/b": nil, "a\x00b": nil, strings.Repeat("n", xfs.MaxName+1): xfs.ErrNameLong,
	} {
		_, err := u.Create(ctx, next(), xfs.RootInode, name, 0o600, true)
		u.fails(err, xos.Invalid, want)
		_, err = u.Mkdir(ctx, next(), xfs.RootInode, name, 0o700)
		u.fails(err, xos.Invalid, want)
		u.fails(u.Unlink(ctx, next(), xfs.RootInode, name, false), xos.Invalid, want)
	}
	want := map[string]xfs.Inode{}
	for _, name := range []string{strings.Repeat("n", xfs.MaxName), "ünïcødé", "\xff\xfe", "...", " ", "a\nb", "A", "a"} {
		want[name] = u.file(xfs.RootInode, name)
	}
	u.wantTree(want)
}

func testKinds(t *testing.T, u user) {
	ctx := t.Context()
	fifo, err := u.Mknod(ctx, next(), xfs.RootInode, "fifo", typeFIFO|0o600)
	u.must(err)
	if fifo.Mode != typeFIFO|0o600 {
		t.Errorf("fifo: mode %o", fifo.Mode)
	}
	_, err = u.Open(ctx, fifo.Inode, xfs.MayRead)
	u.fails(err, xos.Invalid, nil)
	_, err = u.Mknod(ctx, next(), xfs.RootInode, "null", typeChar|0o666)
	u.fails(err, xos.Permission, nil)
	file, err := u.Mknod(ctx, next(), xfs.RootInode, "file", typeFile|0o600)
	u.must(err)
	_, err = u.Open(ctx, file.Inode, xfs.MayRead|xfs.MayWrite)
	u.must(err)
	link, err := u.Symlink(ctx, next(), xfs.RootInode, "link", "../s\xffme where")
	u.must(err)
	if link.Mode&typeMask != typeSymlink || link.Size != int64(len("../s\xffme where")) {
		t.Errorf("symlink: %+v", link)
	}
	target, err := u.Readlink(ctx, link.Inode)
	if err != nil || target != "../s\xffme where" {
		t.Errorf("readlink: %q, %v", target, err)
	}
	_, err = u.Readlink(ctx, file.Inode)
	u.fails(err, xos.Invalid, nil)
	for _, bad := range []string{"", strings.Repeat("t", xfs.MaxTarget+1)} {
		_, err = u.Symlink(ctx, next(), xfs.RootInode, "bad", bad)
		u.fails(err, xos.Invalid, nil)
	}
	_, err = u.Symlink(ctx, next(), xfs.RootInode, "long", strings.Repeat("t", xfs.MaxTarget))
	u.must(err)
}

func testLinks(t *testing.T, u user) {
	ctx := t.Context()
	f, d := u.file(xfs.RootInode, "f"), u.dir(xfs.RootInode, "d")
	a, err := u.Link(ctx, next(), f, d, "g")
	u.must(err)
	if a.Inode != f || a.Nlink != 2 {
		t.Errorf("link: %+v", a)
	}
	_, err = u.Link(ctx, next(), f, d, "g")
	u.fails(err, xos.Exists, nil)
	_, err = u.Link(ctx, next(), d, xfs.RootInode, "e")
	u.fails(err, xos.Permission, nil)
	u.must(u.Unlink(ctx, next(), xfs.RootInode, "f", false))
	if a := u.attr(f); a.Nlink != 1 {
		t.Errorf("after unlink: %+v", a)
	}
	u.wantTree(map[string]xfs.Inode{"d": d, "d/g": f})
}

func testUnlink(t *testing.T, u user) {
	ctx := t.Context()
	f := u.file(xfs.RootInode, "f")
	u.must(u.Unlink(ctx, next(), xfs.RootInode, "f", true))
	if a := u.attr(f); a.Nlink != 0 {
		t.Errorf("kept file: %+v", a)
	}
	_, err := u.Open(ctx, f, xfs.MayRead|xfs.MayWrite)
	u.must(err)
	_, err = u.Flush(ctx, next(), f, 10, time.Now())
	u.must(err)
	_, err = u.Link(ctx, next(), f, xfs.RootInode, "back")
	u.fails(err, xos.NotFound, xfs.ErrStale)
	u.wantTree(map[string]xfs.Inode{})
	u.must(u.Release(ctx, next(), f))
	_, err = u.Getattr(ctx, f)
	u.fails(err, xos.NotFound, xfs.ErrStale)
	u.must(u.Release(ctx, next(), f))

	g := u.file(xfs.RootInode, "g")
	u.must(u.Unlink(ctx, next(), xfs.RootInode, "g", false))
	_, err = u.Open(ctx, g, xfs.MayRead)
	u.fails(err, xos.NotFound, xfs.ErrStale)
	u.fails(u.Unlink(ctx, next(), xfs.RootInode, "g", false), xos.NotFound, nil)
}
