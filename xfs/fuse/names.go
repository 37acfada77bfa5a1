package fuse

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xtreemos/xos/xfs"
)

func (fs *FS) Lookup(cancel <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	a, err := fs.client.Lookup(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name)
	if errno(err) == gofuse.ENOENT {
		out.NodeId = 0 // to the kernel: no such name, and for how long
		out.SetEntryTimeout(absent)
		return gofuse.OK
	}
	if err != nil {
		return fs.status("lookup", h.NodeId, err)
	}
	fs.entry(a, out)
	return gofuse.OK
}

func (fs *FS) Forget(ino, n uint64) { fs.client.Forget(xfs.Inode(ino), n) }

func (fs *FS) GetAttr(cancel <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	a, err := fs.client.Getattr(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId))
	if err != nil {
		return fs.status("getattr", in.NodeId, err)
	}
	fs.attr(a, &out.Attr)
	out.SetTimeout(ttl)
	return gofuse.OK
}

func (fs *FS) SetAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	var set xfs.SetAttr
	if mode, ok := in.GetMode(); ok {
		set.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		owner := fs.id.Account
		if uid != fs.id.UID {
			return gofuse.EPERM
		}
		set.Owner = &owner
	}
	if gid, ok := in.GetGID(); ok {
		group, known := fs.gids[gid]
		if gid != fs.id.GID && !known {
			return gofuse.EPERM
		}
		set.Group = &group
	}
	if size, ok := in.GetSize(); ok {
		n := int64(size)
		set.Size = &n
	}
	now := time.Now()
	if t, ok := in.GetATime(); ok {
		set.Atime = &t
	} else if in.Valid&gofuse.FATTR_ATIME_NOW != 0 {
		set.Atime = &now
	}
	if t, ok := in.GetMTime(); ok {
		set.Mtime = &t
	} else if in.Valid&gofuse.FATTR_MTIME_NOW != 0 {
		set.Mtime = &now
	}
	a, err := fs.client.Setattr(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), set)
	if err != nil {
		return fs.status("setattr", in.NodeId, err)
	}
	fs.attr(a, &out.Attr)
	out.SetTimeout(ttl)
	return gofuse.OK
}

// made answers for an operation that gave a new name.
func (fs *FS) made(op string, parent uint64, a xfs.Attr, err error, out *gofuse.EntryOut) gofuse.Status {
	if err != nil {
		return fs.status(op, parent, err)
	}
	fs.entry(a, out)
	return gofuse.OK
}

func (fs *FS) Mknod(cancel <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	switch in.Mode & syscall.S_IFMT {
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return gofuse.EPERM
	}
	a, err := fs.client.Mknod(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), name, in.Mode)
	return fs.made("mknod", in.NodeId, a, err, out)
}

func (fs *FS) Mkdir(cancel <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	a, err := fs.client.Mkdir(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), name, in.Mode)
	return fs.made("mkdir", in.NodeId, a, err, out)
}

func (fs *FS) Symlink(cancel <-chan struct{}, h *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	a, err := fs.client.Symlink(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name, target)
	return fs.made("symlink", h.NodeId, a, err, out)
}

func (fs *FS) Link(cancel <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	a, err := fs.client.Link(fs.context(cancel, in.Pid), xfs.Inode(in.Oldnodeid), xfs.Inode(in.NodeId), name)
	return fs.made("link", in.NodeId, a, err, out)
}

func (fs *FS) Unlink(cancel <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	return fs.status("unlink", h.NodeId, fs.client.Unlink(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name))
}

func (fs *FS) Rmdir(cancel <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	return fs.status("rmdir", h.NodeId, fs.client.Rmdir(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name))
}

func (fs *FS) Rename(cancel <-chan struct{}, in *gofuse.RenameIn, name, newName string) gofuse.Status {
	err := fs.client.Rename(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), name, xfs.Inode(in.Newdir), newName, xfs.RenameFlags(in.Flags))
	return fs.status("rename", in.NodeId, err)
}

func (fs *FS) Readlink(cancel <-chan struct{}, h *gofuse.InHeader) ([]byte, gofuse.Status) {
	target, err := fs.client.Readlink(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId))
	return []byte(target), fs.status("readlink", h.NodeId, err)
}

func (fs *FS) StatFs(cancel <-chan struct{}, h *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	s, err := fs.client.Statfs(fs.context(cancel, h.Pid))
	if err != nil {
		return fs.status("statfs", h.NodeId, err)
	}
	const block = 64 << 10
	out.Bsize, out.Frsize, out.NameLen = block, block, xfs.MaxName
	out.Blocks, out.Bfree, out.Bavail = uint64(s.Total/block), uint64(s.Free/block), uint64(s.Free/block)
	out.Files, out.Ffree = 1<<40, 1<<40 // inode numbers do not run out
	return gofuse.OK
}

// listing is an open directory: the entries read ahead of the kernel.
type listing struct {
	ino     xfs.Inode
	entries []xfs.Entry
	done    bool
	at      uint64 // the offset of entries[0]'s predecessor
}

// Offsets in a listing: 0 the start, 1 after ".", 2 after "..", and from there
// the entries' cookies, which are greater.
const (
	afterDot    = 1
	afterDotDot = 2
	pageSize    = 512
)

func (fs *FS) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.next++
	fs.dirs[fs.next] = &listing{ino: xfs.Inode(in.NodeId)}
	out.Fh = fs.next
	return gofuse.OK
}

func (fs *FS) ReleaseDir(in *gofuse.ReleaseIn) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.dirs, in.Fh)
}

func (fs *FS) FsyncDir(<-chan struct{}, *gofuse.FsyncIn) gofuse.Status {
	return gofuse.OK // changes of names are durable when they are answered
}

func (fs *FS) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.list(cancel, in, func(name string, off uint64, a xfs.Attr) bool {
		return out.AddDirEntry(gofuse.DirEntry{Name: name, Mode: a.Mode, Ino: uint64(a.Inode), Off: off})
	})
}

func (fs *FS) ReadDirPlus(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.list(cancel, in, func(name string, off uint64, a xfs.Attr) bool {
		e := out.AddDirLookupEntry(gofuse.DirEntry{Name: name, Mode: a.Mode, Ino: uint64(a.Inode), Off: off})
		if e == nil {
			return false
		}
		if name != "." && name != ".." {
			fs.entry(fs.client.Refer(a), e)
		}
		return true
	})
}

func (fs *FS) list(cancel <-chan struct{}, in *gofuse.ReadIn, add func(string, uint64, xfs.Attr) bool) gofuse.Status {
	fs.mu.Lock()
	l := fs.dirs[in.Fh]
	fs.mu.Unlock()
	if l == nil {
		return gofuse.EBADF
	}
	ctx := fs.context(cancel, in.Pid)
	at := in.Offset
	if at < afterDot {
		if !add(".", afterDot, xfs.Attr{Inode: l.ino, Mode: syscall.S_IFDIR}) {
			return gofuse.OK
		}
		at = afterDot
	}
	if at < afterDotDot {
		if !add("..", afterDotDot, xfs.Attr{Inode: l.ino, Mode: syscall.S_IFDIR}) {
			return gofuse.OK
		}
		at = afterDotDot
	}
	for {
		page, done, err := fs.page(ctx, l, at)
		if err != nil {
			return fs.status("readdir", in.NodeId, err)
		}
		for _, e := range page {
			if !add(e.Name, e.Cookie, e.Attr) {
				return gofuse.OK
			}
			at = e.Cookie
		}
		if done {
			return gofuse.OK
		}
	}
}

// page gives entries after an offset: those read before, if the kernel goes on
// where they begin or inside them.
func (fs *FS) page(ctx context.Context, l *listing, at uint64) ([]xfs.Entry, bool, error) {
	fs.mu.Lock()
	if at > afterDotDot && len(l.entries) > 0 {
		if at == l.at {
			entries, done := l.entries, l.done
			fs.mu.Unlock()
			return entries, done, nil
		}
		for i, e := range l.entries {
			if e.Cookie == at && i+1 < len(l.entries) && l.entries[i+1].Cookie != at {
				entries, done := l.entries[i+1:], l.done
				fs.mu.Unlock()
				return entries, done, nil
			}
		}
	}
	fs.mu.Unlock()
	after := at
	if at <= afterDotDot {
		after = 0
	}
	entries, done, err := fs.client.Readdir(ctx, l.ino, after, pageSize)
	if err != nil {
		return nil, false, err
	}
	fs.mu.Lock()
	l.entries, l.done, l.at = entries, done, at
	fs.mu.Unlock()
	return entries, done, nil
}
