package fuse

import (
	"context"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
)

// rights of an open mode. A writer may read: the kernel reads pages that it
// writes a part of.
func rights(flags uint32) xfs.Rights {
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return xfs.MayRead
	}
	return xfs.MayRead | xfs.MayWrite
}

func (fs *FS) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	f, keep, err := fs.client.Open(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), rights(in.Flags), in.Flags&syscall.O_TRUNC != 0)
	if err != nil {
		return fs.status("open", in.NodeId, err)
	}
	out.Fh = fs.hold(f)
	if keep {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
	return gofuse.OK
}

func (fs *FS) Create(cancel <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	ctx := fs.context(cancel, in.Pid)
	a, f, err := fs.client.Create(ctx, xfs.Inode(in.NodeId), name, in.Mode, in.Flags&syscall.O_EXCL != 0)
	if err != nil {
		return fs.status("create", in.NodeId, err)
	}
	if in.Flags&syscall.O_TRUNC != 0 && a.Size > 0 {
		zero := int64(0)
		if a, err = fs.client.Setattr(ctx, a.Inode, xfs.SetAttr{Size: &zero}); err != nil {
			f.Close(ctx)
			fs.client.Forget(f.Inode(), 1)
			return fs.status("create", in.NodeId, err)
		}
	}
	fs.entry(a, &out.EntryOut)
	out.Fh = fs.hold(f)
	return gofuse.OK
}

func (fs *FS) Read(cancel <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	f := fs.file(in.Fh)
	if f == nil {
		return nil, gofuse.EBADF
	}
	n, err := f.ReadAt(fs.context(cancel, in.Pid), buf, int64(in.Offset))
	if err != nil {
		return nil, fs.status("read", in.NodeId, err)
	}
	return gofuse.ReadResultData(buf[:n]), gofuse.OK
}

func (fs *FS) Write(cancel <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	f := fs.file(in.Fh)
	if f == nil {
		return 0, gofuse.EBADF
	}
	n, err := f.WriteAt(fs.context(cancel, in.Pid), data, int64(in.Offset))
	return uint32(n), fs.status("write", in.NodeId, err)
}

func (fs *FS) Flush(cancel <-chan struct{}, in *gofuse.FlushIn) gofuse.Status {
	f := fs.file(in.Fh)
	if f == nil {
		return gofuse.EBADF
	}
	// A killed process's files are closed by the kernel, which interrupts no
	// more: whether that is so is looked at while it waits. Not before, for
	// what tells it may itself wait for a process that closes files by exec.
	over := make(chan struct{})
	close(over)
	ctx := client.WithImpatience(context.Background(), over, func() bool { return killed(in.Pid) })
	return fs.status("flush", in.NodeId, f.Flush(ctx))
}

func (fs *FS) Fsync(cancel <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	f := fs.file(in.Fh)
	if f == nil {
		return gofuse.EBADF
	}
	return fs.status("fsync", in.NodeId, f.Sync(fs.context(cancel, in.Pid)))
}

func (fs *FS) Release(cancel <-chan struct{}, in *gofuse.ReleaseIn) {
	fs.mu.Lock()
	f := fs.handles[in.Fh]
	delete(fs.handles, in.Fh)
	fs.mu.Unlock()
	if f == nil {
		return
	}
	if err := f.Close(fs.context(cancel, in.Pid)); err != nil {
		fs.log.Warn("closing a file", "inode", in.NodeId, "error", err)
	}
}

// Fallocate extends a file; there is nothing to reserve on the storage.
func (fs *FS) Fallocate(cancel <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	f := fs.file(in.Fh)
	if f == nil {
		return gofuse.EBADF
	}
	if in.Mode != 0 {
		return gofuse.Status(syscall.EOPNOTSUPP)
	}
	end := int64(in.Offset + in.Length)
	if end <= f.Size() {
		return gofuse.OK
	}
	_, err := fs.client.Setattr(fs.context(cancel, in.Pid), f.Inode(), xfs.SetAttr{Size: &end})
	return fs.status("fallocate", in.NodeId, err)
}
