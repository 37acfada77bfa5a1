package etcd

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/overlay"
)

// tries bounds how often a transaction's function runs.
const tries = 100

func (s *Store) retry(ctx context.Context, what string, once func() (done bool, err error)) error {
	for n := range tries {
		if err := ctx.Err(); err != nil {
			return xos.Errorf(xos.Unavailable, "%s: %w", what, err)
		}
		done, err := once()
		if done || err != nil {
			return err
		}
		if n < 3 {
			continue
		}
		t := time.NewTimer(rand.N(time.Duration(min(n, 20)) * 2 * time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return xos.Errorf(xos.Conflict, "%s: they were changed by others at each of %d tries", what, tries)
}

// attempt runs f once; done is false if someone else's commit came between.
func (s *Store) attempt(ctx context.Context, f func(kv.Txn) error) (done bool, err error) {
	snap := &snapshot{s: s, ctx: ctx}
	begun := time.Now()
	txn := overlay.New(snap, s.limits, true)
	err = f(txn)
	if doomed := txn.End(); err == nil {
		err = doomed
	}
	switch {
	case snap.lost:
		return false, nil
	case err != nil:
		return true, err
	case snap.err != nil:
		return true, snap.err
	}
	changes := txn.Changes()
	if len(changes) == 0 {
		return true, nil
	}
	ifs := s.comparisons(snap, txn.Spans())
	thens, err := s.writes(ctx, changes)
	if err != nil {
		return true, err
	}
	if n := max(len(ifs), len(thens)); n > s.maxOps {
		return true, xos.Errorf(xos.TooLarge, "a transaction of %d reads or writes, %d are allowed", n, s.maxOps)
	}
	if time.Since(begun) > maxAge {
		return false, nil
	}
	bounded, cancel := context.WithTimeout(ctx, maxAge)
	defer cancel()
	r, err := s.client.Txn(bounded).If(ifs...).Then(thens...).Commit()
	if err != nil {
		return true, s.failed("change records", err)
	}
	return r.Succeeded, nil
}

// comparisons say that nothing that was read has changed; see the package
// comment.
func (s *Store) comparisons(snap *snapshot, spans []overlay.Span) []clientv3.Cmp {
	var all []clientv3.Cmp
	for key, mod := range snap.seen {
		all = append(all, clientv3.Compare(clientv3.ModRevision(s.data+key), "=", mod))
	}
	for key, mod := range snap.leased {
		if _, twice := snap.seen[key]; !twice {
			all = append(all, clientv3.Compare(clientv3.ModRevision(s.data+key), "=", mod))
		}
	}
	for _, span := range spans {
		for _, space := range []string{s.data, s.marks} {
			from, to := within(space, span.Start, span.End, span.Unbounded)
			all = append(all, clientv3.Compare(clientv3.ModRevision(from), "<", snap.rev+1).WithRange(to))
		}
	}
	return all
}

func (s *Store) writes(ctx context.Context, changes []overlay.Change) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	for _, c := range changes {
		if c.Deleted || c.Lease != 0 {
			lease, err := s.mark.get(ctx, s)
			if err != nil {
				return nil, err
			}
			ops = append(ops, clientv3.OpPut(s.marks+c.Key, "", clientv3.WithLease(lease)))
		}
		switch {
		case c.Deleted:
			ops = append(ops, clientv3.OpDelete(s.data+c.Key))
		case c.Lease != 0:
			ops = append(ops, clientv3.OpPut(s.data+c.Key, string(c.Value), clientv3.WithLease(clientv3.LeaseID(c.Lease))))
		default:
			ops = append(ops, clientv3.OpPut(s.data+c.Key, string(c.Value)))
		}
	}
	return ops, nil
}

// A mark's lease is used for markUse and lasts for markTTL, so that a mark
// lives for the difference at least. That must exceed a transaction's age: at
// most maxAge until its commit is sent, and maxAge for that.
const (
	maxAge  = 2 * time.Minute
	markUse = 5 * time.Minute
	markTTL = 15 * time.Minute
)

// markLease is the lease that new marks get.
type markLease struct {
	mu    sync.Mutex
	id    clientv3.LeaseID
	since time.Time
}

func (m *markLease) get(ctx context.Context, s *Store) (clientv3.LeaseID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == 0 || time.Since(m.since) > markUse {
		asked := time.Now()
		r, err := s.client.Grant(ctx, int64(markTTL/time.Second))
		if err != nil {
			return 0, s.failed("change records", err)
		}
		m.id, m.since = r.ID, asked
	}
	return m.id, nil
}
