package mrc

import (
	"context"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

// Open gives a capability. The mode is checked as at open(2); a file's owner
// may always renew what a descriptor of hers can do, whatever the mode is now,
// which is why ownership is enough.
func (v *view) Open(ctx context.Context, ino xfs.Inode, rights xfs.Rights) (xfs.Opened, error) {
	if rights == 0 || rights&^(xfs.MayRead|xfs.MayWrite) != 0 {
		return xfs.Opened{}, xos.Errorf(xos.Invalid, "a file is opened to read or to write")
	}
	return v.opened(ctx, ino, rights)
}

func (v *view) opened(ctx context.Context, ino xfs.Inode, rights xfs.Rights) (o xfs.Opened, err error) {
	var osd string
	kept := false
	err = v.look(ctx, func(x tx) error {
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		if n.isDir() {
			return xfs.ErrIsDir
		}
		if n.Mode&modeType != modeFile {
			return xos.Errorf(xos.Invalid, "only regular files have data")
		}
		var want uint32
		if rights&xfs.MayRead != 0 {
			want |= mayRead
		}
		if rights&xfs.MayWrite != 0 {
			want |= mayWrite
		}
		if err := v.may(n, want); err != nil && v.owns(n) != nil {
			return err
		}
		osd, kept = n.OSD, n.Nlink == 0
		o.Layout = x.layout(n)
		o.Attr, err = x.attr(ino, n)
		return err
	})
	if err != nil {
		return o, err
	}
	if kept { // its user lives: the time to keep it begins anew
		if err := v.keep(ctx, ino); err != nil {
			return o, err
		}
	}
	at, err := v.storage.Target(ctx, osd)
	if err != nil {
		return o, err
	}
	o.Layout.Replicas[0].Stripes[0] = at
	o.Capability = xfs.Capability{
		File: xfs.FileID{Volume: v.volume.Name, Inode: ino}, Rights: rights, Node: v.who.Node, Account: v.account,
		Epoch: o.Layout.Epoch, Expires: v.cfg.Now().Add(v.cfg.CapabilityTTL),
	}
	if v.who.NotAfter.Before(o.Capability.Expires) {
		o.Capability.Expires = v.who.NotAfter
	}
	return o, frame.Sign(&o.Capability, v.key)
}

// keep notes that an unlinked file is in use still.
func (v *view) keep(ctx context.Context, ino xfs.Inode) error {
	return v.db.Update(ctx, func(t kv.Txn) error {
		x := tx{t, v.volume.Name}
		_, ok, err := get[int64](x, x.key('o', ino))
		if err == nil && !ok {
			err = xfs.ErrStale
		}
		if err != nil {
			return err
		}
		return put(x, x.key('o', ino), v.cfg.Now().UnixNano())
	})
}

func (v *view) Readdir(ctx context.Context, ino xfs.Inode, after uint64, max int) (list []xfs.Entry, done bool, err error) {
	if max <= 0 {
		return nil, false, xos.Errorf(xos.Invalid, "a listing of %d entries", max)
	}
	err = v.look(ctx, func(x tx) error {
		list, done = nil, true
		dir, err := x.directory(ino)
		if err != nil {
			return err
		}
		if err := v.may(dir, mayRead); err != nil {
			return err
		}
		var found []dirent
		names := len(x.key('d', ino, after))
		err = x.Range(x.key('d', ino, after+1), x.key('d', ino+1), func(key, value []byte) (bool, error) {
			at, err := x.direntInode(value)
			if err != nil {
				return false, err
			}
			d := dirent{at, string(key[names:])}
			// A page never ends between two names of one hash.
			if len(found) >= max && nameHash(d.Name) != nameHash(found[len(found)-1].Name) {
				done = false
				return false, nil
			}
			found = append(found, d)
			return true, nil
		})
		if err != nil {
			return err
		}
		for _, d := range found {
			n, ok, err := x.inode(d.Inode)
			if err != nil {
				return err
			}
			if !ok {
				return xos.Errorf(xos.Internal, "entry %q of directory %d leads nowhere", d.Name, ino)
			}
			a, err := x.attr(d.Inode, n)
			if err != nil {
				return err
			}
			list = append(list, xfs.Entry{Name: d.Name, Attr: a, Cookie: nameHash(d.Name)})
		}
		return nil
	})
	return list, done, err
}
