package client

import (
	"context"
	"errors"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// maxSize bounds files: offsets fit the numbers of objects and blocks.
const maxSize = 1 << 46

// ErrFileTooLarge is said of sizes and offsets that no file has.
var ErrFileTooLarge error = &xos.Error{Kind: xos.TooLarge, Msg: "a file has at most 64 TiB"}

// WriteAt writes; the data is sent later. An earlier write's failure is
// reported by this one.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.may(xfs.MayWrite); err != nil {
		return 0, err
	}
	if err := f.failed(); err != nil {
		return 0, err
	}
	if off < 0 || off > maxSize-int64(len(p)) {
		return 0, ErrFileTooLarge
	}
	in := f.in
	done := 0
	for done < len(p) {
		err := in.c.waitForRoom(ctx) // without the gate, which making room needs
		if err == nil {
			var n int
			in.gate.RLock()
			n, err = in.writeChunk(ctx, p[done:], off+int64(done))
			in.gate.RUnlock()
			done += n
		}
		if err != nil && done > 0 {
			return done, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return done, nil
}

// writeChunk takes in what of p falls into one chunk.
func (in *inode) writeChunk(ctx context.Context, p []byte, off int64) (int, error) {
	size := in.chunkSize()
	from := int(off % size)
	n := min(len(p), int(size)-from)
	in.mu.Lock()
	k := in.chunk(off / size)
	for len(k.sent.within(from, from+n)) > 0 {
		// What is on its way must stay as its checksum says.
		if err := await(ctx, in.cond); err != nil {
			in.mu.Unlock()
			return 0, err
		}
		k = in.chunk(off / size)
	}
	copy(k.data[from:], p[:n])
	k.dirty = k.dirty.add(from, from+n)
	k.acked, k.stale = k.acked.remove(from, from+n), k.stale.remove(from, from+n)
	delete(in.fetches, off/size)
	now := time.Now()
	if in.dirtied.IsZero() {
		in.dirtied = now
	}
	in.size = max(in.size, off+int64(n))
	in.mtime, in.unsaid = now, true
	in.writes++
	full := k.dirty.is(0, int(size))
	in.mu.Unlock()
	in.activate()
	if full {
		in.sendSoon(k)
	}
	return n, nil
}

// activate has the background work look after the inode.
func (in *inode) activate() {
	in.c.mu.Lock()
	in.c.active[in] = struct{}{}
	in.c.mu.Unlock()
}

// sendSoon sends a full chunk in the background, if a sender is free.
func (in *inode) sendSoon(k *chunk) {
	c := in.c
	select {
	case c.writers <- struct{}{}:
	default:
		return // the next full one, or its age, will have it sent
	}
	c.mu.Lock()
	in.busy++
	c.mu.Unlock()
	go func() {
		defer func() { <-c.writers; c.done(in) }()
		in.gate.RLock()
		defer in.gate.RUnlock()
		in.send(context.Background(), k)
	}()
}

// waitForRoom holds a writer back while too much is held.
func (c *Client) waitForRoom(ctx context.Context) error {
	if c.used.Load() < c.cfg.Buffers {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.used.Load() >= c.cfg.Buffers {
		select {
		case c.kick <- struct{}{}:
		default:
		}
		if err := await(ctx, c.room); err != nil {
			return err
		}
	}
	return nil
}

// send sends what is dirty in a chunk. An error that will not pass is noted:
// the data is given up, and whoever has the file open is told. The gate is
// held.
func (in *inode) send(ctx context.Context, k *chunk) error {
	for {
		in.mu.Lock()
		for len(k.sent) > 0 {
			if err := await(ctx, in.cond); err != nil {
				in.mu.Unlock()
				return err
			}
		}
		todo := k.dirty
		if len(todo) == 0 || k.data == nil {
			in.mu.Unlock()
			return nil
		}
		k.sent, k.dirty = todo, nil
		in.mu.Unlock()
		err := in.cutStorage(ctx)
		var before uint64
		if err == nil {
			before, err = in.sendSpans(ctx, k, todo)
		}
		left := false
		in.mu.Lock()
		k.sent = nil
		if err == nil {
			k.acks++
			if len(k.acked) == 0 || before < k.since {
				k.since = before
			}
			for _, s := range todo {
				// What was written over meanwhile is dirty again.
				k.acked = k.acked.add(s.from, s.to)
				in.ackEnd = max(in.ackEnd, k.n*in.chunkSize()+int64(s.to))
			}
			if in.acked.IsZero() {
				in.acked = time.Now()
			}
		} else if left = errors.Is(err, ErrInterrupted) || ctx.Err() != nil; left {
			// Only who asked for it has gone: it is sent later.
			k.dirty = k.dirty.union(todo)
			if in.dirtied.IsZero() {
				in.dirtied = time.Now()
			}
		} else {
			in.failures++
			in.failure = err
			if k.idle() {
				in.drop(k)
			}
		}
		in.cond.Broadcast()
		in.mu.Unlock()
		if left {
			return err
		}
		if err != nil {
			in.c.deps.Log.Error("data could not be written back", "inode", in.ino, "error", err)
			return err
		}
	}
}

// sendSpans sends spans of a chunk and gives the OSD's Connections before it.
func (in *inode) sendSpans(ctx context.Context, k *chunk, todo spans) (uint64, error) {
	osd := in.storage()
	before := max(osd.Connections(), 1) // what is answered came over the first, at least
	for _, s := range todo {
		object, at := in.object(k.n*in.chunkSize() + int64(s.from))
		data := k.data[s.from:s.to]
		check := sums(at, data)
		err := in.c.persist(ctx, func(ctx context.Context) error {
			capability, err := in.capability(ctx, xfs.MayWrite)
			if err != nil {
				return err
			}
			return osd.Write(ctx, capability, object, at, data, check)
		})
		if err != nil {
			return before, err
		}
	}
	return before, nil
}
