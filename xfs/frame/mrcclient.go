package frame

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// NewMRC gives a volume of the metadata service at the other end of c.
func NewMRC(c *Client, volume xos.VolumeID) xfs.MRC { return &mrcClient{c, volume} }

type mrcClient struct {
	c      *Client
	volume xos.VolumeID
}

func (m *mrcClient) call(ctx context.Context, a mrcArgs, result message) error {
	a.volume = m.volume
	return call(ctx, m.c, a.op, &a, result)
}

func (m *mrcClient) attr(ctx context.Context, a mrcArgs) (r xfs.Attr, err error) {
	err = m.call(ctx, a, attr{&r})
	return
}

func (m *mrcClient) opened(ctx context.Context, a mrcArgs) (r xfs.Opened, err error) {
	err = m.call(ctx, a, opened{&r})
	return
}

func (m *mrcClient) Lookup(ctx context.Context, parent xfs.Inode, name string) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opLookup, ino: parent, name: name})
}

func (m *mrcClient) Getattr(ctx context.Context, ino xfs.Inode) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opGetattr, ino: ino})
}

func (m *mrcClient) Setattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, set xfs.SetAttr) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opSetattr, req: req, ino: ino, set: set})
}

func (m *mrcClient) Readlink(ctx context.Context, ino xfs.Inode) (string, error) {
	var r text
	err := m.call(ctx, mrcArgs{op: opReadlink, ino: ino}, &r)
	return r.s, err
}

func (m *mrcClient) Readdir(ctx context.Context, ino xfs.Inode, after uint64, max int) ([]xfs.Entry, bool, error) {
	var r entries
	err := m.call(ctx, mrcArgs{op: opReaddir, ino: ino, cookie: after, count: max}, &r)
	return r.list, r.done, err
}

func (m *mrcClient) Statfs(ctx context.Context) (r xfs.StatFS, err error) {
	err = m.call(ctx, mrcArgs{op: opStatfs}, statfs{&r})
	return
}

func (m *mrcClient) Create(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32, exclusive bool) (xfs.Opened, error) {
	return m.opened(ctx, mrcArgs{op: opCreate, req: req, ino: parent, name: name, mode: mode, flag: exclusive})
}

func (m *mrcClient) Mknod(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opMknod, req: req, ino: parent, name: name, mode: mode})
}

func (m *mrcClient) Mkdir(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, mode uint32) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opMkdir, req: req, ino: parent, name: name, mode: mode})
}

func (m *mrcClient) Symlink(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name, target string) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opSymlink, req: req, ino: parent, name: name, name2: target})
}

func (m *mrcClient) Link(ctx context.Context, req xfs.RequestID, ino, parent xfs.Inode, name string) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opLink, req: req, ino: parent, name: name, ino2: ino})
}

func (m *mrcClient) Unlink(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string, keep bool) error {
	return m.call(ctx, mrcArgs{op: opUnlink, req: req, ino: parent, name: name, flag: keep}, nothing{})
}

func (m *mrcClient) Rmdir(ctx context.Context, req xfs.RequestID, parent xfs.Inode, name string) error {
	return m.call(ctx, mrcArgs{op: opRmdir, req: req, ino: parent, name: name}, nothing{})
}

func (m *mrcClient) Rename(ctx context.Context, req xfs.RequestID, from xfs.Inode, name string, to xfs.Inode, newName string, flags xfs.RenameFlags, keep bool) error {
	return m.call(ctx, mrcArgs{op: opRename, req: req, ino: from, name: name, ino2: to, name2: newName,
		mode: uint32(flags), flag: keep}, nothing{})
}

func (m *mrcClient) Open(ctx context.Context, ino xfs.Inode, rights xfs.Rights) (xfs.Opened, error) {
	return m.opened(ctx, mrcArgs{op: opOpen, ino: ino, rights: rights})
}

func (m *mrcClient) Flush(ctx context.Context, req xfs.RequestID, ino xfs.Inode, size int64, mtime time.Time) (xfs.Attr, error) {
	return m.attr(ctx, mrcArgs{op: opFlush, req: req, ino: ino, size: size, mtime: mtime})
}

func (m *mrcClient) Release(ctx context.Context, req xfs.RequestID, ino xfs.Inode) error {
	return m.call(ctx, mrcArgs{op: opRelease, req: req, ino: ino}, nothing{})
}

func (m *mrcClient) Getxattr(ctx context.Context, ino xfs.Inode, name string) ([]byte, error) {
	var value []byte
	a := mrcArgs{op: opGetxattr, volume: m.volume, ino: ino, name: name}
	head, err := encode(nil, &a)
	if err != nil {
		return nil, err
	}
	_, err = m.c.Do(ctx, Call{Op: a.op, Head: head}, func(head []byte) error {
		var r blob
		err := decode(head, &r)
		value = append([]byte{}, r.b...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

func (m *mrcClient) Setxattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, name string, value []byte, flags int) error {
	return m.call(ctx, mrcArgs{op: opSetxattr, req: req, ino: ino, name: name, value: value, count: flags}, nothing{})
}

func (m *mrcClient) Listxattr(ctx context.Context, ino xfs.Inode) ([]string, error) {
	var r names
	err := m.call(ctx, mrcArgs{op: opListxattr, ino: ino}, &r)
	return r.list, err
}

func (m *mrcClient) Removexattr(ctx context.Context, req xfs.RequestID, ino xfs.Inode, name string) error {
	return m.call(ctx, mrcArgs{op: opRemovexattr, req: req, ino: ino, name: name}, nothing{})
}
