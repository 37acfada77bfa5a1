package pebble

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/overlay"
)

// tries bounds how often Update runs its function.
const tries = 100

// Update implements kv.Store.
func (s *Store) Update(ctx context.Context, f func(kv.Txn) error) error {
	for n := range tries {
		if err := ctx.Err(); err != nil {
			return xos.Errorf(xos.Unavailable, "change records: %w", err)
		}
		done, err := s.attempt(f)
		if done || err != nil {
			return err
		}
		if err := backOff(ctx, n); err != nil {
			return xos.Errorf(xos.Unavailable, "change records: %w", err)
		}
	}
	return xos.Errorf(xos.Conflict, "records were changed by others at each of %d tries", tries)
}

// attempt runs f once; done is false if someone else's commit came between.
func (s *Store) attempt(f func(kv.Txn) error) (done bool, err error) {
	base, err := s.enter(func() *version { return s.latest })
	if err != nil {
		return false, err
	}
	defer s.leave(base)
	txn := overlay.New(base, limits, true)
	err = f(txn)
	if doomed := txn.End(); err == nil {
		err = doomed
	}
	changes := txn.Changes()
	if err != nil || len(changes) == 0 {
		if werr := s.awaitDurable(base.rev); werr != nil {
			return true, werr
		}
		return true, err
	}
	return s.commit(base.rev, txn.HasRead, changes)
}

// commit makes changes durable unless hasRead holds for a key that a commit
// since base wrote.
func (s *Store) commit(base kv.Revision, hasRead func(string) bool, changes []overlay.Change) (done bool, err error) {
	s.commitMu.Lock()
	s.mu.Lock()
	err = s.usableForCommitLocked()
	since, whole := s.history.since(base)
	s.mu.Unlock()
	if err != nil {
		s.commitMu.Unlock()
		return false, err
	}
	if !whole || conflicts(since, hasRead) {
		s.commitMu.Unlock()
		return false, nil
	}
	batch := s.db.NewBatch()
	if err := s.fill(batch, changes); err != nil {
		s.commitMu.Unlock()
		batch.Close()
		return false, err
	}
	v, err := s.applyLocked(batch, events(changes))
	s.commitMu.Unlock()
	if err != nil {
		return false, err
	}
	return true, s.awaitSync(batch, v)
}

// usableForCommitLocked lets calls that began before Close finish.
func (s *Store) usableForCommitLocked() error {
	if s.broken != nil {
		return s.usableLocked()
	}
	return nil
}

// fill translates changes; commitMu is held.
func (s *Store) fill(batch *pebble.Batch, changes []overlay.Change) error {
	for _, c := range changes {
		if c.Deleted {
			if err := batch.Delete(dataKey([]byte(c.Key)), nil); err != nil {
				return xos.Errorf(xos.Internal, "change records: %w", err)
			}
			continue
		}
		if c.Lease != 0 {
			if !s.leases.alive(c.Lease, s.now()) {
				return xos.Errorf(xos.Expired, "lease %d has ended", c.Lease)
			}
			if err := batch.Set(leaseKey(holdSpace, c.Lease, c.Key), nil, nil); err != nil {
				return xos.Errorf(xos.Internal, "change records: %w", err)
			}
		}
		if err := batch.Set(dataKey([]byte(c.Key)), encodeValue(c.Value, c.Lease), nil); err != nil {
			return xos.Errorf(xos.Internal, "change records: %w", err)
		}
	}
	return nil
}

// applyLocked gives the batch the next revision, writes it to the log and
// makes it the latest version; commitMu is held. The version returned carries
// a reference that awaitSync gives up.
func (s *Store) applyLocked(batch *pebble.Batch, evs []kv.Event) (*version, error) {
	s.mu.Lock()
	rev := s.latest.rev + 1
	s.mu.Unlock()
	if err := batch.Set(revisionKey, binary.BigEndian.AppendUint64(nil, uint64(rev)), nil); err != nil {
		batch.Close()
		return nil, xos.Errorf(xos.Internal, "change records: %w", err)
	}
	if err := s.db.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
		// Nothing was applied, but what became of the log is not known.
		err = xos.Errorf(xos.Unavailable, "change records: %w", err)
		s.fail(err)
		return nil, err
	}
	for i := range evs {
		evs[i].Revision = rev
	}
	v := &version{rev: rev, snap: s.db.NewSnapshot(), refs: 2} // as latest, and for awaitSync
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(s.latest)
	s.latest = v
	s.history.add(commitRecord{rev: rev, events: evs}, s.durable.rev)
	return v, nil
}

// awaitSync waits for the fsync of v's batch, then makes v visible to View and
// Watch.
func (s *Store) awaitSync(batch *pebble.Batch, v *version) error {
	err := batch.SyncWait()
	if err == nil {
		err = batch.Close()
	}
	if err != nil {
		err = xos.Errorf(xos.Unavailable, "it is not known whether the change of records was kept: %w", err)
		s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || v.rev <= s.durable.rev {
		// The log is sequential, so a later commit's fsync covered this one.
		s.releaseLocked(v)
		return err
	}
	s.releaseLocked(s.durable)
	s.durable = v
	s.signalLocked()
	return nil
}

// awaitDurable waits until revision rev cannot be lost.
func (s *Store) awaitDurable(rev kv.Revision) error {
	for {
		s.mu.Lock()
		durable, broken, changed := s.durable.rev, s.broken, s.changed
		s.mu.Unlock()
		switch {
		case durable >= rev:
			return nil
		case broken != nil:
			return xos.Errorf(xos.Unavailable, "the records read may be lost: %w", broken)
		}
		<-changed // the commit in flight ends in any case, by awaitSync
	}
}

func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
		s.log.Error("the record store stops: a write failed", "err", err)
	}
	s.signalLocked()
}

// signalLocked wakes all who wait for a new state.
func (s *Store) signalLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// events turns changes into what watchers see; the revision is set later.
func events(changes []overlay.Change) []kv.Event {
	evs := make([]kv.Event, len(changes))
	for i, c := range changes {
		evs[i] = kv.Event{Key: []byte(c.Key), Value: c.Value, Deleted: c.Deleted}
	}
	return evs
}

// backOff waits a random while, longer after more conflicts.
func backOff(ctx context.Context, n int) error {
	if n < 3 {
		return nil
	}
	t := time.NewTimer(rand.N(time.Duration(min(n, 20)) * 500 * time.Microsecond))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
