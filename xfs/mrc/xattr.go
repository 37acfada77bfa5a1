package mrc

import (
	"context"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
)

// Flags of setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// maxXattrs bounds the attributes of one file.
const maxXattrs = 64

// checkXattr admits the namespace that users have (xattr(7)).
func checkXattr(name string) error {
	if !strings.HasPrefix(name, "user.") {
		return xos.Errorf(xos.NotSupported, "only attributes of the namespace user can be kept in a volume")
	}
	if len(name) <= len("user.") || len(name) > xfs.MaxName || strings.ContainsRune(name, 0) {
		return xos.Errorf(xos.Invalid, "%.80q cannot name an attribute", name)
	}
	return nil
}

func (v *view) Getxattr(ctx context.Context, ino xfs.Inode, name string) (value []byte, err error) {
	if err := checkXattr(name); err != nil {
		return nil, xfs.ErrNoAttr // what cannot be there is not
	}
	err = v.look(ctx, func(x tx) error {
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		if err := v.may(n, mayRead); err != nil {
			return err
		}
		data, ok, err := x.Get(x.key('x', ino, name))
		if err == nil && !ok {
			err = xfs.ErrNoAttr
		}
		value = data
		return err
	})
	return value, err
}

func (v *view) Setxattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, name string, value []byte, flags int) error {
	if err := checkXattr(name); err != nil {
		return err
	}
	if len(value) > xfs.MaxXattr {
		return xos.Errorf(xos.TooLarge, "an attribute of %d bytes", len(value))
	}
	return v.changeXattr(ctx, req, ino, func(x tx) error {
		key := x.key('x', ino, name)
		_, ok, err := x.Get(key)
		if err != nil {
			return err
		}
		switch {
		case ok && flags&xattrCreate != 0:
			return xos.Errorf(xos.Exists, "the attribute exists")
		case !ok && flags&xattrReplace != 0:
			return xfs.ErrNoAttr
		}
		if !ok {
			list, err := x.xattrs(ino)
			if err != nil {
				return err
			}
			if len(list) >= maxXattrs {
				return xos.Errorf(xos.TooLarge, "a file has at most %d attributes", maxXattrs)
			}
		}
		return x.Put(key, value)
	})
}

func (v *view) Removexattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, name string) error {
	return v.changeXattr(ctx, req, ino, func(x tx) error {
		key := x.key('x', ino, name)
		if _, ok, err := x.Get(key); err != nil {
			return err
		} else if !ok {
			return xfs.ErrNoAttr
		}
		return x.Delete(key)
	})
}

func (v *view) changeXattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, f func(x tx) error) error {
	return v.changeOnly(ctx, req, func(x tx, now int64) error {
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		if n.Mode&modeType != modeFile && !n.isDir() {
			return xos.Errorf(xos.Permission, "only files and directories have attributes")
		}
		if err := v.may(n, mayWrite); err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		n.Ctime = now
		n.bump(now)
		return x.put(ino, n)
	})
}

func (v *view) Listxattr(ctx context.Context, ino xfs.Inode) (names []string, err error) {
	err = v.look(ctx, func(x tx) error {
		if _, err := x.need(ino); err != nil {
			return err
		}
		names, err = x.xattrs(ino)
		return err
	})
	return names, err
}

func (x tx) xattrs(ino xfs.Inode) (names []string, err error) {
	prefix := x.key('x', ino)
	err = x.Range(prefix, kv.PrefixEnd(prefix), func(key, _ []byte) (bool, error) {
		names = append(names, string(key[len(prefix):]))
		return true, nil
	})
	return names, err
}
