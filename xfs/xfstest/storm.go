package xfstest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// testStorm has several clients change a small tree at random, all getting in
// each other's way, and then looks whether names, inodes and link counts fit
// together.
func testStorm(t *testing.T, u user) {
	dirs := []xfs.Inode{xfs.RootInode}
	for i := range 4 {
		dirs = append(dirs, u.dir(dirs[i/2], fmt.Sprintf("dir%d", i)))
	}
	var wg sync.WaitGroup
	for k := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(k), 9))
			for range 150 {
				if err := u.randomChange(context.WithoutCancel(t.Context()), r, dirs); err != nil && !expected(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	u.check()
}

// randomChange does one of all changes there are, on names that others use.
func (u user) randomChange(ctx context.Context, r *rand.Rand, dirs []xfs.Inode) error {
	any := func() xfs.Inode { return dirs[r.IntN(len(dirs))] }
	name := func() string {
		if r.IntN(3) == 0 {
			return fmt.Sprintf("dir%d", r.IntN(4))
		}
		return fmt.Sprintf("n%d", r.IntN(5))
	}
	var err error
	switch r.IntN(8) {
	case 0, 1:
		_, err = u.Create(ctx, next(), any(), name(), 0o600, r.IntN(2) == 0)
	case 2:
		_, err = u.Mkdir(ctx, next(), any(), name(), 0o700)
	case 3:
		err = u.Unlink(ctx, next(), any(), name(), false)
	case 4:
		err = u.Rmdir(ctx, next(), any(), name())
	case 5:
		var a xfs.Attr
		if a, err = u.Lookup(ctx, any(), name()); err == nil {
			_, err = u.Link(ctx, next(), a.Inode, any(), name())
		}
	default:
		err = u.Rename(ctx, next(), any(), name(), any(), name(), xfs.RenameFlags(r.IntN(3)), false)
	}
	return err
}

// expected reports whether an error says no more than that the tree was not as
// a random change would need it.
func expected(err error) bool {
	switch xos.KindOf(err) {
	case xos.NotFound, xos.Exists, xos.Invalid, xos.Conflict:
		return true
	case xos.Permission: // a hard link to a directory
		return true
	}
	return false
}

// check looks whether the whole tree fits together: every name leads to an
// inode, every directory has one name and is not below itself, every file has
// as many names as it says.
func (u user) check() {
	u.t.Helper()
	names := map[xfs.Inode]uint32{}
	for path, ino := range u.tree(xfs.RootInode, "") {
		names[ino]++
		if a := u.attr(ino); a.Mode&typeMask == typeDir && names[ino] > 1 {
			u.t.Errorf("directory %d has two names, one is %s", ino, path)
		}
	}
	for ino, n := range names {
		if a := u.attr(ino); a.Nlink != n {
			u.t.Errorf("inode %d has %d names and says %d", ino, n, a.Nlink)
		}
	}
}
