package mrc

import (
	"context"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
)

// victim finds the entry to remove and checks that this user may.
func (v *view) victim(x tx, parent xfs.Inode, name string) (dirent, inode, error) {
	if err := checkName(name); err != nil {
		return dirent{}, inode{}, err
	}
	dir, err := x.directory(parent)
	if err != nil {
		return dirent{}, inode{}, err
	}
	if err := v.may(dir, mayExec); err != nil {
		return dirent{}, inode{}, err
	}
	d, ok, err := x.dirent(parent, name)
	if err != nil {
		return dirent{}, inode{}, err
	}
	if !ok {
		return dirent{}, inode{}, xos.Errorf(xos.NotFound, "no such file")
	}
	n, err := x.need(d.Inode)
	if err != nil {
		return dirent{}, inode{}, err
	}
	return d, n, v.mayChange(dir, &n)
}

func (v *view) Unlink(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, keep bool) error {
	err := v.changeOnly(ctx, req, func(x tx, now int64) error {
		d, n, err := v.victim(x, parent, name)
		if err != nil {
			return err
		}
		if n.isDir() {
			return xfs.ErrIsDir
		}
		if err := x.Delete(x.direntKey(parent, name)); err != nil {
			return err
		}
		if err := x.touch(parent, now); err != nil {
			return err
		}
		return v.drop(x, d.Inode, n, keep, now)
	})
	v.purgeSoon()
	return err
}

// drop takes one name from a file; with the last, the file goes too, at once
// or when who keeps it open releases it.
func (v *view) drop(x tx, ino xfs.Inode, n inode, keep bool, now int64) error {
	n.Nlink--
	n.Ctime = now
	n.bump(now)
	if n.Nlink > 0 {
		return x.put(ino, n)
	}
	if !keep {
		return x.erase(ino, n)
	}
	if err := put(x, x.key('o', ino), now); err != nil {
		return err
	}
	return x.put(ino, n)
}

// erase removes an inode with its attributes, and queues its data for deletion.
func (x tx) erase(ino xfs.Inode, n inode) error {
	prefix := x.key('x', ino)
	var keys [][]byte
	err := x.Range(prefix, kv.PrefixEnd(prefix), func(key, _ []byte) (bool, error) {
		keys = append(keys, append([]byte{}, key...))
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, key := range append(keys, x.key('i', ino), x.key('t', ino), x.key('o', ino)) {
		if err := x.Delete(key); err != nil {
			return err
		}
	}
	if n.Mode&modeType != modeFile {
		return nil
	}
	return put(x, x.key('g', ino), garbage{OSD: n.OSD, Epoch: n.Epoch})
}

func (v *view) Rmdir(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string) error {
	return v.changeOnly(ctx, req, func(x tx, now int64) error {
		d, n, err := v.victim(x, parent, name)
		if err != nil {
			return err
		}
		if !n.isDir() {
			return xfs.ErrNotDir
		}
		return v.removeDir(x, parent, name, d.Inode, n, now)
	})
}

func (v *view) removeDir(x tx, parent xfs.Inode, name string, ino xfs.Inode, n inode, now int64) error {
	empty, err := x.isEmpty(ino)
	if err != nil {
		return err
	}
	if !empty {
		return xfs.ErrNotEmpty
	}
	if err := x.Delete(x.direntKey(parent, name)); err != nil {
		return err
	}
	if err := x.touch(parent, now); err != nil {
		return err
	}
	return x.erase(ino, n)
}

// Release ends the keeping of an unlinked file. One that is not kept is no
// error: it may have been released before.
func (v *view) Release(ctx context.Context, req xfs.RequestID, ino xfs.Inode) error {
	err := v.changeOnly(ctx, req, func(x tx, _ int64) error {
		_, kept, err := get[int64](x, x.key('o', ino))
		if err != nil || !kept {
			return err
		}
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		if err := v.owns(n); err != nil {
			return err
		}
		return x.erase(ino, n)
	})
	v.purgeSoon()
	return err
}
