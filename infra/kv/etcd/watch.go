package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// patience is how long a watcher may leave an event unread.
const patience = 10 * time.Second

// Watch implements kv.Store. The channel is also closed when the servers have
// no leader, or have compacted what is to come.
func (s *Store) Watch(ctx context.Context, prefix []byte, after kv.Revision) (<-chan kv.Event, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	// The state at revision after can be read if and only if all that came
	// later can be watched.
	r, err := s.client.Get(ctx, s.data, clientv3.WithCountOnly(), clientv3.WithRev(int64(after)))
	if err != nil {
		defer s.users.Done()
		if e := rpctypes.Error(err); errors.Is(e, rpctypes.ErrCompacted) || errors.Is(e, rpctypes.ErrFutureRev) {
			return nil, xos.Errorf(xos.Expired, "changes since revision %d are no longer known: %w", after, err).WithHint("read the records anew")
		}
		return nil, s.failed("watch records", err)
	}
	if after == 0 {
		after = kv.Revision(r.Header.Revision)
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	stop := context.AfterFunc(s.ctx, cancel)
	from := s.client.Watch(ctx, s.data+string(prefix), clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1))
	ch := make(chan kv.Event, 64)
	go func() {
		defer s.users.Done()
		defer close(ch)
		defer cancel()
		defer stop()
		s.feed(ctx, from, ch)
	}()
	return ch, nil
}

func (s *Store) feed(ctx context.Context, from clientv3.WatchChan, ch chan<- kv.Event) {
	slow := time.NewTimer(patience)
	defer slow.Stop()
	for r := range from {
		if err := r.Err(); err != nil {
			s.log.Warn("a watch of records ended", "err", err)
			return
		}
		for _, e := range r.Events {
			slow.Reset(patience)
			select {
			case ch <- s.event(e):
			case <-ctx.Done():
				return
			case <-slow.C:
				s.log.Warn("a watcher of records does not read and is dropped", "after", patience)
				return
			}
		}
	}
}

func (s *Store) event(e *clientv3.Event) kv.Event {
	ev := kv.Event{
		Key: e.Kv.Key[len(s.data):], Revision: kv.Revision(e.Kv.ModRevision),
		Deleted: e.Type == clientv3.EventTypeDelete,
	}
	if !ev.Deleted {
		ev.Value = value(e.Kv)
	}
	return ev
}
