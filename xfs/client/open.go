package client

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// renewBefore is how long before its end a capability is no longer used.
const renewBefore = 30 * time.Second

func (c *Client) serves(cp xfs.Capability) bool { return time.Until(cp.Expires) > renewBefore }

// File is an open file. It is safe for concurrent use; Close must be called.
type File struct {
	in     *inode
	rights xfs.Rights
	// told is how many failed write-backs this File's user has been told of;
	// inode.mu guards it.
	told uint64
	next int64 // where a sequential reader goes on; inode.mu guards it
}

// Inode gives the file's number.
func (f *File) Inode() xfs.Inode { return f.in.ino }

// Open opens a file; truncate makes it empty. keep tells that what the user
// has cached of it is still right.
func (c *Client) Open(ctx context.Context, ino xfs.Inode, rights xfs.Rights, truncate bool) (f *File, keep bool, err error) {
	in := c.hold(ino)
	defer c.done(in)
	in.link.RLock()
	defer in.link.RUnlock()
	o, err := retry1(ctx, c, func(ctx context.Context) (xfs.Opened, error) { return c.mrc.Open(ctx, ino, rights) })
	if err != nil {
		return nil, false, err
	}
	f, keep = in.opened(o, rights)
	if truncate && f.Size() > 0 {
		zero := int64(0)
		attr, err := in.truncate(ctx, xfs.SetAttr{Size: &zero})
		if err != nil {
			f.Close(ctx)
			return nil, false, err
		}
		in.show(attr, true)
		keep = false
	}
	return f, keep, nil
}

// Create makes and opens a file, or opens it if it is there and need not be
// new.
func (c *Client) Create(ctx context.Context, parent xfs.Inode, name string, mode uint32, exclusive bool) (xfs.Attr, *File, error) {
	req := c.request()
	o, err := retry1(ctx, c, func(ctx context.Context) (xfs.Opened, error) {
		return c.mrc.Create(ctx, req, parent, name, mode, exclusive)
	})
	if err != nil {
		return xfs.Attr{}, nil, err
	}
	in := c.hold(o.Attr.Inode)
	defer c.done(in)
	f, _ := in.opened(o, o.Capability.Rights)
	return c.refer(o.Attr, false), f, nil
}

// opened counts an open file.
func (in *inode) opened(o xfs.Opened, rights xfs.Rights) (f *File, keep bool) {
	c := in.c
	c.mu.Lock()
	in.opens++
	c.mu.Unlock()
	in.mu.Lock()
	in.take(o)
	foreign := in.adopt(o.Attr, false)
	keep = in.cached != 0 && in.cached == in.attr.Version
	in.cached = in.attr.Version
	f = &File{in: in, rights: rights, told: in.failures, next: -1}
	in.mu.Unlock()
	if foreign {
		c.deps.Changed(in.ino)
	}
	return f, keep
}

// Size gives the file's size, with what was written here.
func (f *File) Size() int64 {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return f.in.size
}

// Flush sends everything and notes size and time at the MRC, as close(2)
// does for who opens the file next.
func (f *File) Flush(ctx context.Context) error {
	if f.rights&xfs.MayWrite == 0 {
		return nil
	}
	err := f.in.c.detached(ctx, f.in, f.in.flush)
	if failed := f.failed(); failed != nil {
		return failed
	}
	return err
}

// Sync makes everything durable.
func (f *File) Sync(ctx context.Context) error {
	err := f.in.c.detached(ctx, f.in, f.in.sync)
	if failed := f.failed(); failed != nil {
		return failed
	}
	return err
}

// Close gives the file up. What it reports was to be had from Flush.
func (f *File) Close(ctx context.Context) error {
	in, c := f.in, f.in.c
	err := f.Flush(ctx)
	in.link.Lock()
	defer in.link.Unlock()
	c.mu.Lock()
	in.opens--
	last := in.opens == 0
	in.busy++
	c.mu.Unlock()
	defer c.done(in)
	in.mu.Lock()
	kept := in.kept
	if last {
		in.fetches = nil
	}
	in.mu.Unlock()
	if last && kept {
		in.release(ctx)
	}
	return err
}

// failed gives the error of write-backs that this File was not yet told of.
func (f *File) failed() error {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.told == f.in.failures {
		return nil
	}
	f.told = f.in.failures
	return f.in.failure
}

func (f *File) may(r xfs.Rights) error {
	if f.rights&r == 0 {
		return xos.Errorf(xos.Permission, "the file was not opened for this")
	}
	return nil
}
