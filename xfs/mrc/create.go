package mrc

import (
	"context"
	"encoding/binary"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// entry makes a new inode under a name that is free.
func (v *view) entry(x tx, parent xfs.Inode, name string, ino xfs.Inode, n inode, now int64) (xfs.Attr, error) {
	dir, err := v.freeName(x, parent, name)
	if err != nil {
		return xfs.Attr{}, err
	}
	n.Owner, n.Atime, n.Mtime, n.Ctime = v.account, now, now, now
	n.bump(now)
	if dir.Mode&0o2000 != 0 { // set-group-id: the directory's group is inherited
		n.Group = dir.Group
		if n.isDir() {
			n.Mode |= 0o2000
		}
	}
	if n.isDir() {
		n.Parent = parent
	}
	if err := x.put(ino, n); err != nil {
		return xfs.Attr{}, err
	}
	if err := v.link(x, parent, name, ino, now); err != nil {
		return xfs.Attr{}, err
	}
	return x.attr(ino, n)
}

// freeName checks that a name may be made in a directory and is not taken.
func (v *view) freeName(x tx, parent xfs.Inode, name string) (inode, error) {
	if err := checkName(name); err != nil {
		return inode{}, err
	}
	dir, err := x.directory(parent)
	if err != nil {
		return inode{}, err
	}
	if err := v.may(dir, mayExec); err != nil {
		return inode{}, err
	}
	if _, taken, err := x.dirent(parent, name); err != nil {
		return inode{}, err
	} else if taken {
		return inode{}, xos.Errorf(xos.Exists, "file exists")
	}
	return dir, v.mayChange(dir, nil)
}

func (v *view) link(x tx, parent xfs.Inode, name string, ino xfs.Inode, now int64) error {
	if err := x.Put(x.direntKey(parent, name), binary.BigEndian.AppendUint64(nil, uint64(ino))); err != nil {
		return err
	}
	return x.touch(parent, now)
}

// file gives a new regular file's record, with its place.
func (v *view) file(ctx context.Context, mode uint32) (inode, error) {
	at, err := v.storage.Pick(ctx)
	if err != nil {
		return inode{}, err
	}
	return inode{Mode: modeFile | mode&modeBits, Nlink: 1, OSD: at.OSD, Object: v.volume.ObjectSize, Epoch: 1}, nil
}

func (v *view) Create(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32, exclusive bool) (xfs.Opened, error) {
	ino, err := v.newInode(ctx, v.volume.Name)
	if err != nil {
		return xfs.Opened{}, err
	}
	n, err := v.file(ctx, mode)
	if err != nil {
		return xfs.Opened{}, err
	}
	r, err := v.change(ctx, req, func(x tx, now int64) (reply, error) {
		if !exclusive {
			dir, err := x.directory(parent)
			if err != nil {
				return reply{}, err
			}
			if err := v.may(dir, mayExec); err != nil {
				return reply{}, err
			}
			if d, ok, err := x.dirent(parent, name); err != nil || ok {
				return reply{Opened: d.Inode}, err
			}
		}
		_, err := v.entry(x, parent, name, ino, n, now)
		return reply{Opened: ino}, err
	})
	if err != nil {
		return xfs.Opened{}, err
	}
	if r.Opened == 0 {
		return xfs.Opened{}, otherRequest()
	}
	rights := xfs.MayRead | xfs.MayWrite
	if r.Opened != ino {
		return v.Open(ctx, r.Opened, rights) // it was there: the mode decides
	}
	return v.opened(ctx, ino, rights)
}

func (v *view) Mknod(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	n := inode{Mode: mode & (modeType | modeBits), Nlink: 1}
	var err error
	switch mode & modeType {
	case 0, modeFile:
		n, err = v.file(ctx, mode)
	case modeFIFO, modeSocket:
	default:
		err = xos.Errorf(xos.Permission, "device files cannot be made in a volume")
	}
	if err != nil {
		return xfs.Attr{}, err
	}
	return v.make(ctx, req, parent, name, n)
}

func (v *view) Mkdir(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	return v.make(ctx, req, parent, name, inode{Mode: modeDir | mode&0o1777, Nlink: 1})
}

func (v *view) Symlink(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name, target string) (xfs.Attr, error) {
	if target == "" || len(target) > xfs.MaxTarget {
		return xfs.Attr{}, xos.Errorf(xos.Invalid, "a link's target has 1 to %d bytes", xfs.MaxTarget)
	}
	return v.make(ctx, req, parent, name, inode{Mode: modeSymlink | 0o777, Nlink: 1, Target: []byte(target)})
}

func (v *view) make(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, n inode) (xfs.Attr, error) {
	ino, err := v.newInode(ctx, v.volume.Name)
	if err != nil {
		return xfs.Attr{}, err
	}
	return v.changeAttr(ctx, req, func(x tx, now int64) (xfs.Attr, error) { return v.entry(x, parent, name, ino, n, now) })
}

// maxLinks bounds the names of one file.
const maxLinks = 65000

func (v *view) Link(ctx context.Context, req xfs.RequestID, ino, parent xfs.Inode, name string) (xfs.Attr, error) {
	return v.changeAttr(ctx, req, func(x tx, now int64) (xfs.Attr, error) {
		n, err := x.need(ino)
		if err != nil {
			return xfs.Attr{}, err
		}
		switch {
		case n.isDir():
			return xfs.Attr{}, xos.Errorf(xos.Permission, "directories have one name")
		case n.Nlink == 0:
			return xfs.Attr{}, xfs.ErrStale
		case n.Nlink >= maxLinks:
			return xfs.Attr{}, xfs.ErrTooMany
		}
		if _, err := v.freeName(x, parent, name); err != nil {
			return xfs.Attr{}, err
		}
		n.Nlink++
		n.Ctime = now
		n.bump(now)
		if err := x.put(ino, n); err != nil {
			return xfs.Attr{}, err
		}
		if err := v.link(x, parent, name, ino, now); err != nil {
			return xfs.Attr{}, err
		}
		return x.attr(ino, n)
	})
}
