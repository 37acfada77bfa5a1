package frame

import (
	"context"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// NewOSD gives the storage device at the other end of c.
func NewOSD(c *Client) xfs.OSD { return &osdClient{c} }

type osdClient struct{ c *Client }

// ReaderInto is what an xfs.OSD may implement besides: Read into the caller's
// memory. The client and the OSD of this project do.
type ReaderInto interface {
	ReadInto(ctx context.Context, c xfs.Capability, object uint64, off int64, buf []byte) (n int, sums []uint32, err error)
}

var _ ReaderInto = (*osdClient)(nil)

// call sends a request without bulk and decodes its reply.
func call(ctx context.Context, c *Client, op Op, args, result message) error {
	_, err := exchange(ctx, c, Call{Op: op}, args, result)
	return err
}

// exchange encodes args into call's head, sends it and decodes the reply.
func exchange(ctx context.Context, c *Client, call Call, args, result message) (int, error) {
	buf := getBuffer(0)
	defer buf.free()
	var err error
	if buf.b, err = encode(buf.b, args); err != nil {
		return 0, err
	}
	call.Head = buf.b
	return c.Do(ctx, call, func(head []byte) error { return decode(head, result) })
}

func (o *osdClient) Write(ctx context.Context, c xfs.Capability, object uint64, off int64, data []byte, sums []uint32) error {
	_, err := exchange(ctx, o.c, Call{Op: opWrite, Bulk: data}, &writeArgs{c, object, off, sums}, nothing{})
	return err
}

func (o *osdClient) Read(ctx context.Context, c xfs.Capability, object uint64, off int64, n int) ([]byte, []uint32, error) {
	if n < 0 || n > MaxBulk {
		return nil, nil, xos.Errorf(xos.TooLarge, "read of %d bytes, at most %d", n, MaxBulk)
	}
	data := make([]byte, n)
	n, sums, err := o.ReadInto(ctx, c, object, off, data)
	return data[:n], sums, err
}

func (o *osdClient) ReadInto(ctx context.Context, c xfs.Capability, object uint64, off int64, buf []byte) (int, []uint32, error) {
	if len(buf) > MaxBulk {
		return 0, nil, xos.Errorf(xos.TooLarge, "read of %d bytes, at most %d", len(buf), MaxBulk)
	}
	var r readResult
	n, err := exchange(ctx, o.c, Call{Op: opRead, Into: buf}, &readArgs{c, object, off, len(buf)}, &r)
	if err != nil {
		return 0, nil, err
	}
	return n, r.sums, nil
}

func (o *osdClient) Truncate(ctx context.Context, c xfs.Capability, size, objectSize int64) error {
	return call(ctx, o.c, opTruncate, &truncateArgs{c, size, objectSize}, nothing{})
}

func (o *osdClient) Sync(ctx context.Context, c xfs.Capability) error {
	return call(ctx, o.c, opSync, &capArgs{c}, nothing{})
}

func (o *osdClient) Delete(ctx context.Context, c xfs.Capability) error {
	return call(ctx, o.c, opDelete, &capArgs{c}, nothing{})
}

func (o *osdClient) Space(ctx context.Context) (total, free int64, err error) {
	var r spaceResult
	err = call(ctx, o.c, opSpace, nothing{}, &r)
	return r.total, r.free, err
}
