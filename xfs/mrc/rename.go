package mrc

import (
	"context"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

func (v *view) Rename(ctx context.Context, req xfs.RequestID, from xfs.Inode, name string, to xfs.Inode, newName string, flags xfs.RenameFlags, keep bool) error {
	if flags&^(xfs.RenameNoReplace|xfs.RenameExchange) != 0 || flags == xfs.RenameNoReplace|xfs.RenameExchange {
		return xos.Errorf(xos.Invalid, "rename flags %#x", flags)
	}
	if err := checkName(newName); err != nil {
		return err
	}
	err := v.changeOnly(ctx, req, func(x tx, now int64) error {
		d, n, err := v.victim(x, from, name)
		if err != nil {
			return err
		}
		target, err := x.directory(to)
		if err != nil {
			return err
		}
		if n.isDir() && from != to {
			if err := x.notBelow(to, d.Inode); err != nil {
				return err
			}
			if err := v.may(n, mayWrite); err != nil { // its ".." changes
				return err
			}
		}
		old, taken, err := x.dirent(to, newName)
		if err != nil {
			return err
		}
		if flags == xfs.RenameExchange {
			return v.exchange(x, from, name, d, n, to, newName, old, taken, now)
		}
		if !taken {
			if err := v.mayChange(target, nil); err != nil {
				return err
			}
			return v.move(x, from, name, d, n, to, newName, now)
		}
		if flags == xfs.RenameNoReplace {
			return xos.Errorf(xos.Exists, "file exists")
		}
		if old.Inode == d.Inode {
			return nil // two names of one file: POSIX wants nothing done
		}
		over, err := x.need(old.Inode)
		if err != nil {
			return err
		}
		if err := v.mayChange(target, &over); err != nil {
			return err
		}
		switch {
		case over.isDir() && !n.isDir():
			return xfs.ErrIsDir
		case !over.isDir() && n.isDir():
			return xfs.ErrNotDir
		case over.isDir():
			err = v.removeDir(x, to, newName, old.Inode, over, now)
		default:
			err = v.drop(x, old.Inode, over, keep, now)
		}
		if err != nil {
			return err
		}
		return v.move(x, from, name, d, n, to, newName, now)
	})
	v.purgeSoon()
	return err
}

// move gives a file another name in another directory or the same one.
func (v *view) move(x tx, from xfs.Inode, name string, d dirent, n inode, to xfs.Inode, newName string, now int64) error {
	if err := x.Delete(x.direntKey(from, name)); err != nil {
		return err
	}
	if err := x.touch(from, now); err != nil {
		return err
	}
	return v.place(x, d.Inode, n, to, newName, now)
}

// place puts a file under a name.
func (v *view) place(x tx, ino xfs.Inode, n inode, to xfs.Inode, name string, now int64) error {
	n.Ctime = now
	n.bump(now)
	if n.isDir() {
		n.Parent = to
	}
	if err := x.put(ino, n); err != nil {
		return err
	}
	return v.link(x, to, name, ino, now)
}

func (v *view) exchange(x tx, from xfs.Inode, name string, d dirent, n inode, to xfs.Inode, newName string, old dirent, taken bool, now int64) error {
	if !taken {
		return xos.Errorf(xos.NotFound, "no such file")
	}
	if old.Inode == d.Inode {
		return nil
	}
	target, err := x.directory(to)
	if err != nil {
		return err
	}
	other, err := x.need(old.Inode)
	if err != nil {
		return err
	}
	if err := v.mayChange(target, &other); err != nil {
		return err
	}
	if other.isDir() && from != to {
		if err := x.notBelow(from, old.Inode); err != nil {
			return err
		}
		if err := v.may(other, mayWrite); err != nil {
			return err
		}
	}
	if err := v.place(x, d.Inode, n, to, newName, now); err != nil {
		return err
	}
	return v.place(x, old.Inode, other, from, name, now)
}

// notBelow refuses to move a directory into itself. Every directory on the way
// up is in the transaction's read set, so two moves cannot make a loop
// together.
func (x tx) notBelow(dir, moved xfs.Inode) error {
	for at := dir; ; {
		if at == moved {
			return xos.Errorf(xos.Invalid, "a directory cannot be moved into itself")
		}
		if at == xfs.RootInode {
			return nil
		}
		n, err := x.directory(at)
		if err != nil {
			return err
		}
		at = n.Parent
	}
}
