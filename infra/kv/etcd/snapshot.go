package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xtreemos/xos/infra/kv"
)

// page is how many records are fetched at once.
const page = 512

// snapshot reads at one revision, that of its first read. It implements
// overlay.Snapshot for one transaction.
type snapshot struct {
	s      *Store
	ctx    context.Context // the transaction's; a snapshot lives no longer
	rev    int64
	lost   bool             // the revision was compacted away meanwhile
	seen   map[string]int64 // modification revision of single keys read; 0 for missing
	leased map[string]int64 // the same of leased keys seen in ranges
	err    error            // of Revision, which cannot tell
}

// read is a linearizable read the first time, and later one at its revision,
// by whichever member is near, if that has got so far.
func (n *snapshot) read(key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if n.err != nil {
		return nil, n.err
	}
	if n.rev == 0 {
		r, err := n.s.client.Get(n.ctx, key, opts...)
		if err != nil {
			return nil, n.s.failed("read records", err)
		}
		n.rev = r.Header.Revision
		return r, nil
	}
	opts = append(opts, clientv3.WithRev(n.rev))
	r, err := n.s.client.Get(n.ctx, key, append(opts, clientv3.WithSerializable())...)
	if errors.Is(rpctypes.Error(err), rpctypes.ErrFutureRev) {
		r, err = n.s.client.Get(n.ctx, key, opts...)
	}
	if err != nil {
		n.lost = errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted)
		return nil, n.s.failed("read records", err)
	}
	return r, nil
}

func (n *snapshot) Revision() kv.Revision {
	if n.rev == 0 {
		if _, err := n.read(n.s.data, clientv3.WithCountOnly()); err != nil {
			n.err = err // the next read, or the commit, says so
		}
	}
	return kv.Revision(n.rev)
}

func (n *snapshot) Get(key []byte) ([]byte, bool, error) {
	r, err := n.read(n.s.data + string(key))
	if err != nil {
		return nil, false, err
	}
	mod := int64(0)
	if len(r.Kvs) > 0 {
		mod = r.Kvs[0].ModRevision
	}
	if n.seen == nil {
		n.seen = map[string]int64{}
	}
	n.seen[string(key)] = mod
	if mod == 0 {
		return nil, false, nil
	}
	return value(r.Kvs[0]), true, nil
}

// value gives a copy that is not nil.
func value(r *mvccpb.KeyValue) []byte { return append([]byte{}, r.Value...) }

func (n *snapshot) Range(start, end []byte, f func(key, value []byte) (bool, error)) error {
	from, to := n.s.bounds(string(start), string(end), end == nil)
	for {
		r, err := n.read(from, clientv3.WithRange(to), clientv3.WithLimit(page))
		if err != nil {
			return err
		}
		for _, rec := range r.Kvs {
			key := rec.Key[len(n.s.data):]
			if rec.Lease != 0 {
				if n.leased == nil {
					n.leased = map[string]int64{}
				}
				n.leased[string(key)] = rec.ModRevision
			}
			if more, err := f(key, value(rec)); err != nil || !more {
				return err
			}
		}
		if !r.More || len(r.Kvs) == 0 {
			return nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// bounds gives a range of records as etcd keys.
func (s *Store) bounds(start, end string, unbounded bool) (from, to string) {
	return within(s.data, start, end, unbounded)
}

func within(space, start, end string, unbounded bool) (from, to string) {
	if unbounded {
		return space + start, string(kv.PrefixEnd([]byte(space)))
	}
	return space + start, space + end
}
