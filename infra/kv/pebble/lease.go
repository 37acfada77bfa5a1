package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// leases holds when each lease ends. Deadlines live in memory only: after a
// new start every lease has its whole ttl again, since its holder may have
// been shut out meanwhile. A lease may thus end late, never early.
type leases struct {
	mu   sync.Mutex
	all  map[kv.LeaseID]*term
	poke chan struct{} // the earliest deadline may have come nearer
}

type term struct {
	ttl time.Duration
	end time.Time
}

func (l *leases) load(snap *pebble.Snapshot, now time.Time) (err error) {
	l.all, l.poke = map[kv.LeaseID]*term{}, make(chan struct{}, 1)
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: []byte{leaseSpace}, UpperBound: []byte{leaseSpace + 1}})
	if err != nil {
		return xos.Errorf(xos.Internal, "read the leases: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		raw, verr := it.ValueAndErr()
		if verr != nil || len(it.Key()) != 9 || len(raw) != 8 {
			err = errors.Join(errors.New("a damaged lease"), verr)
			break
		}
		ttl := time.Duration(binary.BigEndian.Uint64(raw))
		l.all[kv.LeaseID(binary.BigEndian.Uint64(it.Key()[1:]))] = &term{ttl, now.Add(ttl)}
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return xos.Errorf(xos.Internal, "read the leases: %w", err)
	}
	return nil
}

func (l *leases) alive(id kv.LeaseID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.all[id]
	return t != nil && now.Before(t.end)
}

// prolong gives false if the lease has ended.
func (l *leases) prolong(id kv.LeaseID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.all[id]
	if t == nil || !now.Before(t.end) {
		return false
	}
	t.end = now.Add(t.ttl)
	return true
}

func (l *leases) add(id kv.LeaseID, ttl time.Duration, now time.Time) {
	l.mu.Lock()
	l.all[id] = &term{ttl, now.Add(ttl)}
	l.mu.Unlock()
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// take removes one lease; false if it is gone already.
func (l *leases) take(id kv.LeaseID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.all[id]
	delete(l.all, id)
	return ok
}

// ended gives those past their deadline, and how long to wait before the next
// look.
func (l *leases) ended(now time.Time) (ids []kv.LeaseID, next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next = time.Hour
	if len(l.all) > 0 {
		// A timer does not run while the machine sleeps, the clock does: so
		// look once a second where there is anything to look for.
		next = time.Second
	}
	for id, t := range l.all {
		if left := t.end.Sub(now); left <= 0 {
			ids = append(ids, id)
		} else {
			next = min(next, left)
		}
	}
	return ids, next
}

// expireLeases ends leases in time until the store closes.
func (s *Store) expireLeases() {
	defer s.users.Done()
	for {
		ids, next := s.leases.ended(s.now())
		for _, id := range ids {
			if err := s.endLease(id); err != nil {
				s.log.Error("end a lease", "lease", id, "err", err)
				return // the store is broken, and says so to every caller
			}
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case <-s.leases.poke:
			t.Stop()
		case <-s.ctx.Done():
			t.Stop()
			return
		}
	}
}

// Lease implements kv.Store.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	if ttl <= 0 {
		return nil, xos.Errorf(xos.Invalid, "a lease of %v", ttl)
	}
	if err := ctx.Err(); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "make a lease: %w", err)
	}
	base, err := s.enter(func() *version { return s.latest })
	if err != nil {
		return nil, err
	}
	defer s.leave(base)
	batch := s.db.NewBatch()
	s.commitMu.Lock()
	s.mu.Lock()
	id := kv.LeaseID(s.latest.rev + 1) // its own commit's revision: never used twice
	err = s.usableForCommitLocked()
	s.mu.Unlock()
	var v *version
	if err == nil {
		err = batch.Set(leaseKey(leaseSpace, id, ""), binary.BigEndian.AppendUint64(nil, uint64(ttl)), nil)
	}
	if err == nil {
		v, err = s.applyLocked(batch, nil)
	}
	s.commitMu.Unlock()
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "make a lease: %w", err)
	}
	if err := s.awaitSync(batch, v); err != nil {
		return nil, err
	}
	s.leases.add(id, ttl, s.now())
	return &lease{s, id}, nil
}

// endLease deletes the lease and the keys it still holds. It is a commit like
// any other; a lease that has ended already is left alone.
func (s *Store) endLease(id kv.LeaseID) error {
	batch := s.db.NewBatch()
	s.commitMu.Lock()
	if !s.leases.take(id) {
		s.commitMu.Unlock()
		return batch.Close()
	}
	s.mu.Lock()
	latest, err := s.latest, s.usableForCommitLocked()
	s.mu.Unlock()
	var v *version
	if err == nil {
		var evs []kv.Event
		// latest is replaced only under commitMu, so it stays open.
		evs, err = dropHeld(latest, batch, id)
		if err == nil {
			v, err = s.applyLocked(batch, evs)
		}
	}
	s.commitMu.Unlock()
	if err != nil {
		return err
	}
	return s.awaitSync(batch, v)
}

// dropHeld deletes, in batch, the lease's record and its keys. A key that was
// put anew without the lease, or with another, stays.
func dropHeld(v *version, batch *pebble.Batch, id kv.LeaseID) (evs []kv.Event, err error) {
	from, to := leaseKey(holdSpace, id, ""), leaseKey(holdSpace, id+1, "")
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "read what a lease holds: %w", err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		key := append([]byte(nil), it.Key()[9:]...)
		_, holder, found, gerr := v.get(key)
		if gerr != nil {
			err = gerr
		} else if found && holder == id {
			err = batch.Delete(dataKey(key), nil)
			evs = append(evs, kv.Event{Key: key, Deleted: true})
		}
	}
	err = errors.Join(err, it.Close(),
		batch.DeleteRange(from, to, nil), batch.Delete(leaseKey(leaseSpace, id, ""), nil))
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "end a lease: %w", err)
	}
	return evs, nil
}

// lease implements kv.Lease.
type lease struct {
	s  *Store
	id kv.LeaseID
}

func (l *lease) ID() kv.LeaseID { return l.id }

func (l *lease) KeepAlive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "prolong a lease: %w", err)
	}
	if !l.s.leases.prolong(l.id, l.s.now()) {
		return xos.Errorf(xos.Expired, "lease %d has ended", l.id)
	}
	return nil
}

// Revoke of a lease that has ended is no error.
func (l *lease) Revoke(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "revoke a lease: %w", err)
	}
	base, err := l.s.enter(func() *version { return l.s.latest })
	if err != nil {
		return err
	}
	defer l.s.leave(base)
	return l.s.endLease(l.id)
}
