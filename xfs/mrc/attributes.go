package mrc

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

func (v *view) Lookup(ctx context.Context, parent xfs.Inode, name string) (a xfs.Attr, err error) {
	if len(name) > xfs.MaxName {
		return a, xfs.ErrNameLong
	}
	err = v.look(ctx, func(x tx) error {
		dir, err := x.directory(parent)
		if err != nil {
			return err
		}
		if err := v.may(dir, mayExec); err != nil {
			return err
		}
		d, ok, err := x.dirent(parent, name)
		if err != nil {
			return err
		}
		if !ok {
			return xos.Errorf(xos.NotFound, "no such file")
		}
		n, err := x.need(d.Inode)
		if err != nil {
			return err
		}
		a, err = x.attr(d.Inode, n)
		return err
	})
	return a, err
}

func (v *view) Getattr(ctx context.Context, ino xfs.Inode) (a xfs.Attr, err error) {
	err = v.look(ctx, func(x tx) error {
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		a, err = x.attr(ino, n)
		return err
	})
	return a, err
}

func (v *view) Setattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, set xfs.SetAttr) (xfs.Attr, error) {
	return v.changeAttr(ctx, req, func(x tx, now int64) (xfs.Attr, error) {
		n, err := x.need(ino)
		if err != nil {
			return xfs.Attr{}, err
		}
		if err := v.applyOwner(&n, set); err != nil {
			return xfs.Attr{}, err
		}
		if set.Size != nil {
			if n.isDir() {
				return xfs.Attr{}, xfs.ErrIsDir
			}
			if n.Mode&modeType != modeFile || *set.Size < 0 {
				return xfs.Attr{}, xos.Errorf(xos.Invalid, "this has no size to set")
			}
			if err := v.may(n, mayWrite); err != nil && v.owns(n) != nil {
				return xfs.Attr{}, err
			}
			n.Size, n.Mtime = *set.Size, now
			n.Mode &^= 0o6000 // writing takes set-id bits away
		}
		if set.Atime != nil || set.Mtime != nil {
			if err := v.may(n, mayWrite); err != nil && v.owns(n) != nil {
				return xfs.Attr{}, err
			}
			if set.Atime != nil {
				n.Atime = nanos(*set.Atime)
			}
			if set.Mtime != nil {
				n.Mtime = nanos(*set.Mtime)
			}
		}
		if n.isDir() && set.Mtime != nil {
			// The record's own times count again, over earlier changes inside.
			if err := x.fold(ino, &n); err != nil {
				return xfs.Attr{}, err
			}
		}
		n.Ctime = now
		n.bump(now)
		if err := x.put(ino, n); err != nil {
			return xfs.Attr{}, err
		}
		return x.attr(ino, n)
	})
}

// applyOwner changes mode, owner and group, by the rules of chmod(2) and
// chown(2) for a user without privileges.
func (v *view) applyOwner(n *inode, set xfs.SetAttr) error {
	if set.Mode != nil || set.Owner != nil || set.Group != nil {
		if err := v.owns(*n); err != nil {
			return err
		}
	}
	if set.Owner != nil && *set.Owner != n.Owner {
		return xos.Errorf(xos.Permission, "files cannot be given away")
	}
	if set.Group != nil && *set.Group != n.Group {
		if *set.Group != "" && !v.groups[*set.Group] {
			return xos.Errorf(xos.Permission, "%s is not in group %.80q", v.account, *set.Group)
		}
		n.Group = *set.Group
		if n.Mode&modeType == modeFile {
			n.Mode &^= 0o6000
		}
	}
	if set.Mode != nil {
		n.Mode = n.Mode&modeType | *set.Mode&modeBits
		if n.Group != "" && !v.groups[n.Group] {
			n.Mode &^= 0o2000
		}
	}
	return nil
}

func (v *view) Readlink(ctx context.Context, ino xfs.Inode) (target string, err error) {
	err = v.look(ctx, func(x tx) error {
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		if n.Mode&modeType != modeSymlink {
			return xos.Errorf(xos.Invalid, "not a symbolic link")
		}
		target = string(n.Target)
		return nil
	})
	return target, err
}

func (v *view) Statfs(ctx context.Context) (xfs.StatFS, error) {
	total, free, err := v.storage.Space(ctx)
	return xfs.StatFS{Total: total, Free: free}, err
}

// Flush records what a writer did. Sizes only grow by it: a truncation is a
// Setattr.
func (v *view) Flush(ctx context.Context, req xfs.RequestID, ino xfs.Inode, size int64, mtime time.Time) (xfs.Attr, error) {
	return v.changeAttr(ctx, req, func(x tx, now int64) (xfs.Attr, error) {
		n, err := x.need(ino)
		if err != nil {
			return xfs.Attr{}, err
		}
		if n.Mode&modeType != modeFile || size < 0 {
			return xfs.Attr{}, xos.Errorf(xos.Invalid, "nothing to flush")
		}
		if err := v.may(n, mayWrite); err != nil && v.owns(n) != nil {
			return xfs.Attr{}, err
		}
		n.Size = max(n.Size, size)
		n.Mtime, n.Ctime = nanos(mtime), now
		n.Mode &^= 0o6000
		n.bump(now)
		if err := x.put(ino, n); err != nil {
			return xfs.Attr{}, err
		}
		return x.attr(ino, n)
	})
}
