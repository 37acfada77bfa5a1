package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// all gives the chunks that fit.
func (in *inode) all(fits func(*chunk) bool) []*chunk {
	in.mu.Lock()
	defer in.mu.Unlock()
	var list []*chunk
	for _, k := range in.chunks {
		if fits(k) {
			list = append(list, k)
		}
	}
	return list
}

// sendAll sends everything that is dirty, several chunks at a time, and waits.
func (in *inode) sendAll(ctx context.Context) error {
	in.gate.RLock()
	defer in.gate.RUnlock()
	in.mu.Lock()
	in.dirtied = time.Time{}
	in.mu.Unlock()
	if err := in.cutStorage(ctx); err != nil {
		return err
	}
	list := in.all(func(k *chunk) bool { return len(k.dirty) > 0 || len(k.sent) > 0 })
	if len(list) == 1 {
		return in.send(ctx, list[0])
	}
	var group sync.WaitGroup
	errs := make([]error, len(list))
	slots := make(chan struct{}, 4)
	for i, k := range list {
		slots <- struct{}{}
		group.Go(func() {
			errs[i] = in.send(ctx, k)
			<-slots
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// flush sends everything and tells the MRC size and time.
func (in *inode) flush(ctx context.Context) error {
	if err := in.sendAll(ctx); err != nil {
		return err
	}
	return in.say(ctx)
}

// say tells the MRC size and time of what was written.
func (in *inode) say(ctx context.Context) error {
	in.saying.Lock()
	defer in.saying.Unlock()
	in.gate.RLock()
	defer in.gate.RUnlock()
	in.mu.Lock()
	unsaid, size, mtime, writes := in.unsaid, in.size, in.mtime, in.writes
	in.mu.Unlock()
	if !unsaid {
		return nil
	}
	req := in.c.request()
	attr, err := retry1(ctx, in.c, func(ctx context.Context) (xfs.Attr, error) {
		return in.c.mrc.Flush(ctx, req, in.ino, size, mtime)
	})
	in.mu.Lock()
	if err == nil && in.writes == writes {
		in.unsaid = false
	}
	foreign := err == nil && in.adopt(attr, true)
	in.mu.Unlock()
	if foreign {
		in.c.deps.Changed(in.ino)
	}
	return err
}

// sync makes everything durable: data first, then size and time.
func (in *inode) sync(ctx context.Context) error {
	in.syncing.Lock()
	defer in.syncing.Unlock()
	for {
		if err := in.sendAll(ctx); err != nil {
			return err
		}
		again, err := in.syncData(ctx)
		if err != nil {
			return err
		}
		if !again {
			return in.say(ctx)
		}
	}
}

// syncData has the OSD make durable what it has. again tells that it may have
// lost some of it before, which is now dirty again.
func (in *inode) syncData(ctx context.Context) (again bool, err error) {
	in.gate.RLock()
	defer in.gate.RUnlock()
	// What is acknowledged after this is another sync's.
	type part struct {
		k     *chunk
		spans spans
		since uint64
		acks  uint64
	}
	var parts []part
	in.mu.Lock()
	for _, k := range in.chunks {
		if len(k.acked) > 0 {
			parts = append(parts, part{k, append(spans{}, k.acked...), k.since, k.acks})
		}
	}
	in.acked = time.Time{}
	in.mu.Unlock()
	if len(parts) == 0 {
		return false, nil
	}
	osd := in.storage()
	err = in.c.persist(ctx, func(ctx context.Context) error {
		capability, err := in.capability(ctx, xfs.MayWrite)
		if err != nil {
			return err
		}
		return osd.Sync(ctx, capability)
	})
	now := osd.Connections()
	in.mu.Lock()
	defer in.mu.Unlock()
	if xos.Is(err, xos.Unavailable) {
		in.acked = time.Now() // what is kept here is tried again
		return false, err
	}
	if err != nil { // it will never be durable: nothing is to wait for it
		in.failures++
		in.failure = err
	}
	for _, p := range parts {
		lost := now != p.since
		if err == nil && !lost && p.k.acks != p.acks {
			// Some of it may have been acknowledged after the sync: another
			// one will cover all.
			in.acked = time.Now()
			continue
		}
		for _, s := range p.spans {
			// Only what is still as it was sent: not what was written over.
			for _, x := range p.k.acked.within(s.from, s.to) {
				if err == nil && lost {
					again = in.resend(p.k, x) || again
				}
				in.settle(p.k, x)
			}
		}
		if p.k.idle() {
			in.drop(p.k)
		}
	}
	return again, err
}

// resend makes dirty again what the OSD may have lost, and reports whether
// there is any. What someone else may have written over since stays away: its
// loss is noted as a failure. mu is held.
func (in *inode) resend(k *chunk, lost span) bool {
	old := k.stale.within(lost.from, lost.to)
	again := spans{lost}
	for _, s := range old {
		again = again.remove(s.from, s.to)
	}
	k.dirty = k.dirty.union(again)
	if len(old) > 0 {
		in.failures++
		in.failure = xos.Errorf(xos.Internal, "storage restarted before data was durable that another machine has changed since")
	}
	return len(again) > 0
}

// abandon forgets what was written: nobody will ever read it, or it cannot be
// written.
func (in *inode) abandon() {
	in.gate.Lock()
	defer in.gate.Unlock()
	in.mu.Lock()
	for _, k := range in.chunks {
		k.dirty, k.acked, k.stale = nil, nil, nil
		in.drop(k)
	}
	in.unsaid, in.uncut = false, false
	in.dirtied, in.acked = time.Time{}, time.Time{}
	in.mu.Unlock()
	in.c.mu.Lock()
	delete(in.c.active, in)
	in.c.mu.Unlock()
}

// age starts work on what has waited long enough, or on everything where room
// is needed.
func (c *Client) age(pressed bool, work *sync.WaitGroup) {
	c.mu.Lock()
	var list []*inode
	for in := range c.active {
		in.busy++
		list = append(list, in)
	}
	c.mu.Unlock()
	now := time.Now()
	for _, in := range list {
		in.mu.Lock()
		old := func(t time.Time, age time.Duration) bool { return !t.IsZero() && now.Sub(t) >= age }
		send := old(in.dirtied, c.cfg.WriteBack) || pressed && !in.dirtied.IsZero()
		settle := old(in.acked, 2*c.cfg.WriteBack) || pressed
		start := (send || settle) && !in.working
		if start {
			in.working = true
		}
		done := len(in.chunks) == 0 && !in.unsaid && !in.uncut
		in.mu.Unlock()
		if done {
			c.mu.Lock()
			delete(c.active, in)
			c.mu.Unlock()
		}
		if !start {
			c.done(in)
			continue
		}
		work.Go(func() {
			defer c.done(in)
			// Failures are noted in the inode, for its users.
			if settle {
				in.sync(context.Background())
			} else {
				in.flush(context.Background())
			}
			in.mu.Lock()
			in.working = false
			in.mu.Unlock()
		})
	}
}
