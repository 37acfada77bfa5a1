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

// Lease implements kv.Store. etcd counts in seconds and has a least ttl (one
// and a half election timeouts), so a lease may last a little longer.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	if ttl <= 0 {
		return nil, xos.Errorf(xos.Invalid, "a lease of %v", ttl)
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.users.Done()
	r, err := s.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, s.failed("make a lease", err)
	}
	return &lease{s, r.ID}, nil
}

// lease implements kv.Lease.
type lease struct {
	s  *Store
	id clientv3.LeaseID
}

func (l *lease) ID() kv.LeaseID { return kv.LeaseID(l.id) }

func (l *lease) KeepAlive(ctx context.Context) error {
	if err := l.s.enter(); err != nil {
		return err
	}
	defer l.s.users.Done()
	if _, err := l.s.client.KeepAliveOnce(ctx, l.id); err != nil {
		return l.s.failed("prolong a lease", err)
	}
	return nil
}

// Revoke of a lease that has ended is no error.
func (l *lease) Revoke(ctx context.Context) error {
	if err := l.s.enter(); err != nil {
		return err
	}
	defer l.s.users.Done()
	_, err := l.s.client.Revoke(ctx, l.id)
	if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return l.s.failed("revoke a lease", err)
	}
	return nil
}
