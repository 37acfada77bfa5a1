package pebble

import (
	"bytes"
	"context"
	"sort"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// commitRecord is what one commit changed, sorted by key. It never changes.
type commitRecord struct {
	rev    kv.Revision
	events []kv.Event
}

func (c commitRecord) bytes() int {
	n := 64
	for _, e := range c.events {
		n += 96 + len(e.Key) + len(e.Value)
	}
	return n
}

// history is the recent commits, all with a revision above floor. Guarded by
// Store.mu; slices of it that were given away stay valid.
type history struct {
	commits []commitRecord
	floor   kv.Revision
	size    int
	limit   int
}

// add appends a commit and forgets the oldest, though never one that is not
// durable yet, nor the newest.
func (h *history) add(c commitRecord, durable kv.Revision) {
	h.commits = append(h.commits, c)
	h.size += c.bytes()
	n := 0
	for h.size > h.limit && n < len(h.commits)-1 && h.commits[n].rev <= durable {
		h.size -= h.commits[n].bytes()
		h.floor = h.commits[n].rev
		h.commits[n] = commitRecord{} // the array may live on for a while
		n++
	}
	h.commits = h.commits[n:]
}

// since gives the commits above rev, and whether those are all.
func (h *history) since(rev kv.Revision) (commits []commitRecord, whole bool) {
	if rev < h.floor {
		return nil, false
	}
	i := sort.Search(len(h.commits), func(i int) bool { return h.commits[i].rev > rev })
	return h.commits[i:len(h.commits):len(h.commits)], true
}

func conflicts(commits []commitRecord, hasRead func(string) bool) bool {
	for _, c := range commits {
		for _, e := range c.events {
			if hasRead(string(e.Key)) {
				return true
			}
		}
	}
	return false
}

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context, prefix []byte, after kv.Revision) (<-chan kv.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, err
	}
	if after == 0 {
		after = s.durable.rev
	}
	if after < s.history.floor || after > s.latest.rev {
		return nil, xos.Errorf(xos.Expired, "changes since revision %d are no longer known (from %d to %d they are)",
			after, s.history.floor, s.latest.rev).WithHint("read the records anew")
	}
	ch := make(chan kv.Event, 64)
	s.users.Add(1)
	go s.feed(ctx, bytes.Clone(prefix), after, ch)
	return ch, nil
}

// feed sends durable commits above after until ctx or the store ends, or the
// history no longer reaches back to where the reader is.
func (s *Store) feed(ctx context.Context, prefix []byte, after kv.Revision, ch chan<- kv.Event) {
	defer s.users.Done()
	defer close(ch)
	for {
		s.mu.Lock()
		commits, whole := s.history.since(after)
		durable, changed := s.durable.rev, s.changed
		over := s.closed || s.broken != nil
		// Copied, since add clears what it forgets.
		ready := sort.Search(len(commits), func(i int) bool { return commits[i].rev > durable })
		commits = append([]commitRecord(nil), commits[:min(ready, 256)]...)
		s.mu.Unlock()
		if !whole || over {
			return
		}
		for _, c := range commits {
			if !send(ctx, s.ctx, prefix, c, ch) {
				return
			}
			after = c.rev
		}
		if len(commits) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func send(ctx, store context.Context, prefix []byte, c commitRecord, ch chan<- kv.Event) bool {
	for _, e := range c.events {
		if !bytes.HasPrefix(e.Key, prefix) {
			continue
		}
		// Each watcher gets its own bytes: the record is also the write set.
		e.Key = bytes.Clone(e.Key)
		e.Value = bytes.Clone(e.Value)
		select {
		case ch <- e:
		case <-ctx.Done():
			return false
		case <-store.Done():
			return false
		}
	}
	return true
}
