package client

import (
	"context"
	"errors"
	"time"

	"github.com/xtreemos/xos/xfs"
)

// Lookup finds a name. As with every call that gives the attributes of a named
// file, the caller has a reference to it thereafter, until Forget.
func (c *Client) Lookup(ctx context.Context, parent xfs.Inode, name string) (xfs.Attr, error) {
	attr, err := retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) {
		return c.mrc.Lookup(ctx, parent, name)
	})
	if err != nil {
		return xfs.Attr{}, err
	}
	return c.refer(attr, false), nil
}

// Getattr gives attributes, with what was written here and is still unsent.
func (c *Client) Getattr(ctx context.Context, ino xfs.Inode) (xfs.Attr, error) {
	in := c.hold(ino)
	defer c.done(in)
	if attr, ok := in.fresh(); ok {
		return attr, nil
	}
	attr, err := retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Getattr(ctx, ino) })
	if err != nil {
		return xfs.Attr{}, err
	}
	return in.show(attr, false), nil
}

// fresh gives the attributes of a file that is being written here without
// asking: only this client's writes are the reason to ask so often.
func (in *inode) fresh() (xfs.Attr, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.unsaid || time.Since(in.seen) > time.Second {
		return xfs.Attr{}, false
	}
	in.told = in.attr.Version
	return in.visible(), true
}

// Setattr changes attributes; a size is a truncation or extension.
func (c *Client) Setattr(ctx context.Context, ino xfs.Inode, set xfs.SetAttr) (xfs.Attr, error) {
	in := c.hold(ino)
	defer c.done(in)
	if set.Size != nil {
		attr, err := in.truncate(ctx, set)
		if err != nil {
			return xfs.Attr{}, err
		}
		return in.show(attr, true), nil
	}
	if set.Mtime != nil {
		// A later Flush would put the time of writing in its place.
		if err := in.flush(ctx); err != nil {
			return xfs.Attr{}, err
		}
	}
	req := c.request()
	attr, err := retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Setattr(ctx, req, ino, set) })
	if err != nil {
		return xfs.Attr{}, err
	}
	return in.show(attr, true), nil
}

// Readlink gives a symbolic link's target.
func (c *Client) Readlink(ctx context.Context, ino xfs.Inode) (string, error) {
	return retry1(ctx, c, func(ctx context.Context) (string, error) { return c.mrc.Readlink(ctx, ino) })
}

// Readdir lists as xfs.MRC does; it makes no references (see Refer).
func (c *Client) Readdir(ctx context.Context, ino xfs.Inode, after uint64, max int) (entries []xfs.Entry, done bool, err error) {
	err = c.retry(ctx, func(ctx context.Context) error {
		var err error
		entries, done, err = c.mrc.Readdir(ctx, ino, after, max)
		return err
	})
	return entries, done, err
}

// Statfs sums up the volume.
func (c *Client) Statfs(ctx context.Context) (xfs.StatFS, error) {
	return retry1(ctx, c, c.mrc.Statfs)
}

// Mknod makes a regular file, fifo or socket.
func (c *Client) Mknod(ctx context.Context, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	req := c.request()
	return c.made(retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Mknod(ctx, req, parent, name, mode) }))
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	req := c.request()
	return c.made(retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Mkdir(ctx, req, parent, name, mode) }))
}

// Symlink makes a symbolic link.
func (c *Client) Symlink(ctx context.Context, parent xfs.Inode, name, target string) (xfs.Attr, error) {
	req := c.request()
	return c.made(retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Symlink(ctx, req, parent, name, target) }))
}

// Link gives a file one more name.
func (c *Client) Link(ctx context.Context, ino, parent xfs.Inode, name string) (xfs.Attr, error) {
	req := c.request()
	return c.made(retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Link(ctx, req, ino, parent, name) }))
}

func (c *Client) made(attr xfs.Attr, err error) (xfs.Attr, error) {
	if err != nil {
		return xfs.Attr{}, err
	}
	return c.refer(attr, true), nil
}

// Rmdir removes an empty directory.
func (c *Client) Rmdir(ctx context.Context, parent xfs.Inode, name string) error {
	req := c.request()
	return c.retry(ctx, func(ctx context.Context) error { return c.mrc.Rmdir(ctx, req, parent, name) })
}

// Unlink removes a name. A file that is open here stays usable until it is
// closed.
func (c *Client) Unlink(ctx context.Context, parent xfs.Inode, name string) error {
	req := c.request()
	return c.removing(ctx, parent, name, func(ctx context.Context, keep bool) error {
		return c.mrc.Unlink(ctx, req, parent, name, keep)
	})
}

// Rename moves; what had the new name is as after Unlink.
func (c *Client) Rename(ctx context.Context, from xfs.Inode, name string, to xfs.Inode, newName string, flags xfs.RenameFlags) error {
	req := c.request()
	rename := func(ctx context.Context, keep bool) error {
		return c.mrc.Rename(ctx, req, from, name, to, newName, flags, keep)
	}
	if flags != 0 { // nothing is removed
		return c.retry(ctx, func(ctx context.Context) error { return rename(ctx, false) })
	}
	return c.removing(ctx, to, newName, rename)
}

// removing does what takes a name from a file: it must know whether the file
// is open here, and that must not change meanwhile.
func (c *Client) removing(ctx context.Context, parent xfs.Inode, name string, remove func(ctx context.Context, keep bool) error) error {
	attr, err := retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Lookup(ctx, parent, name) })
	if err != nil { // there is none, or remove says it better
		return c.retry(ctx, func(ctx context.Context) error { return remove(ctx, false) })
	}
	in := c.hold(attr.Inode)
	defer c.done(in)
	in.link.Lock()
	defer in.link.Unlock()
	c.mu.Lock()
	keep := in.opens > 0
	c.mu.Unlock()
	if err := c.retry(ctx, func(ctx context.Context) error { return remove(ctx, keep) }); err != nil {
		return err
	}
	if !keep && attr.Nlink == 1 {
		in.abandon() // of no use to anybody
	}
	if keep {
		in.keep(ctx, attr)
	}
	return nil
}

// keep notes that an open file has lost a name.
func (in *inode) keep(ctx context.Context, before xfs.Attr) {
	c := in.c
	after, err := retry1(ctx, c, func(ctx context.Context) (xfs.Attr, error) { return c.mrc.Getattr(ctx, in.ino) })
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err == nil:
		in.adopt(after, true)
		in.kept = after.Nlink == 0
	default: // it may be lost; Release does no harm then
		in.kept = before.Nlink <= 1
	}
}

// release gives up a kept file; the last File was closed.
func (in *inode) release(ctx context.Context) {
	c := in.c
	in.abandon()
	req := c.request()
	err := c.retry(ctx, func(ctx context.Context) error { return c.mrc.Release(ctx, req, in.ino) })
	if err != nil && !errors.Is(err, xfs.ErrStale) {
		c.deps.Log.Warn("an unlinked file could not be released", "inode", in.ino, "error", err)
	}
}
