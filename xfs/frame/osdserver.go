package frame

import (
	"context"
	"log/slog"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// ServeOSD makes a server of storage. For each request resolve gives the
// storage as this peer may see it, or refuses; it should be quick. What the
// storage gets as data is valid only until its method returns.
func ServeOSD(log *slog.Logger, resolve func(ctx context.Context, p *Peer) (xfs.OSD, error)) *Server {
	s := osdServer{resolve}
	return NewServer(log, map[Op]Handler{
		opWrite:    s.write,
		opRead:     s.read,
		opTruncate: s.truncate,
		opSync:     s.sync,
		opDelete:   s.delete,
		opSpace:    s.space,
	})
}

type osdServer struct {
	resolve func(context.Context, *Peer) (xfs.OSD, error)
}

// open decodes the arguments and finds the storage.
func (s osdServer) open(ctx context.Context, r *Request, args message, bulk bool) (xfs.OSD, error) {
	if err := decode(r.Head, args); err != nil {
		return nil, err
	}
	if !bulk && len(r.Bulk) > 0 {
		return nil, xos.Errorf(xos.Invalid, "malformed message: unexpected data")
	}
	return s.resolve(ctx, r.Peer)
}

func (s osdServer) write(ctx context.Context, r *Request) (Reply, error) {
	var a writeArgs
	o, err := s.open(ctx, r, &a, true)
	if err != nil {
		return Reply{}, err
	}
	return Reply{}, o.Write(ctx, a.cap, a.object, a.off, r.Bulk, a.sums)
}

func (s osdServer) read(ctx context.Context, r *Request) (Reply, error) {
	var a readArgs
	o, err := s.open(ctx, r, &a, false)
	if err != nil {
		return Reply{}, err
	}
	if a.n < 0 || a.n > MaxBulk {
		return Reply{}, xos.Errorf(xos.TooLarge, "read of %d bytes, at most %d", a.n, MaxBulk)
	}
	var reply Reply
	var result readResult
	if into, ok := o.(ReaderInto); ok {
		buf := getBuffer(a.n)
		reply.Done = buf.free
		var n int
		n, result.sums, err = into.ReadInto(ctx, a.cap, a.object, a.off, buf.b)
		reply.Bulk = buf.b[:n]
	} else {
		reply.Bulk, result.sums, err = o.Read(ctx, a.cap, a.object, a.off, a.n)
	}
	if err != nil {
		return reply, err
	}
	reply.Head, err = encode(nil, &result)
	return reply, err
}

func (s osdServer) truncate(ctx context.Context, r *Request) (Reply, error) {
	var a truncateArgs
	o, err := s.open(ctx, r, &a, false)
	if err != nil {
		return Reply{}, err
	}
	return Reply{}, o.Truncate(ctx, a.cap, a.size, a.objectSize)
}

func (s osdServer) sync(ctx context.Context, r *Request) (Reply, error) {
	var a capArgs
	o, err := s.open(ctx, r, &a, false)
	if err != nil {
		return Reply{}, err
	}
	return Reply{}, o.Sync(ctx, a.cap)
}

func (s osdServer) delete(ctx context.Context, r *Request) (Reply, error) {
	var a capArgs
	o, err := s.open(ctx, r, &a, false)
	if err != nil {
		return Reply{}, err
	}
	return Reply{}, o.Delete(ctx, a.cap)
}

func (s osdServer) space(ctx context.Context, r *Request) (Reply, error) {
	o, err := s.open(ctx, r, nothing{}, false)
	if err != nil {
		return Reply{}, err
	}
	var a spaceResult
	if a.total, a.free, err = o.Space(ctx); err != nil {
		return Reply{}, err
	}
	head, err := encode(nil, &a)
	return Reply{Head: head}, err
}
