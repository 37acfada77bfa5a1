package process

import (
	"context"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

// Looks has those who ask at the same time who runs share one look at the
// machine: when a thousand people leave at once, not each of them walks through
// all processes. Nobody gets one that was begun before he asked. The zero Looks
// is ready; it must not be copied.
type Looks struct {
	take func() (Census, error) // nil is Take

	mu   sync.Mutex
	busy bool  // somebody looks
	next *look // for those who have asked since he began
}

type look struct {
	done   chan struct{} // closed when the rest is there
	census Census
	err    error
}

// Take gives a census that was begun after the call, or the context's end.
func (l *Looks) Take(ctx context.Context) (Census, error) {
	l.mu.Lock()
	if l.next == nil {
		l.next = &look{done: make(chan struct{})}
	}
	mine := l.next
	if !l.busy {
		l.busy = true
		go l.work()
	}
	l.mu.Unlock()
	select {
	case <-mine.done:
		return mine.census, mine.err
	case <-ctx.Done():
		return Census{}, xos.Errorf(xos.Unavailable, "listing processes: %w", ctx.Err())
	}
}

// work looks until nobody waits.
func (l *Looks) work() {
	take := l.take
	if take == nil {
		take = Take
	}
	for {
		l.mu.Lock()
		now := l.next
		l.next = nil // who comes from here on came too late for this one
		l.busy = now != nil
		l.mu.Unlock()
		if now == nil {
			return
		}
		now.census, now.err = take()
		close(now.done)
	}
}

// Running reports whether a process that is not dead has one of the ids, as its
// real, effective, saved or file system uid.
func (l *Looks) Running(ctx context.Context, ids session.IDs) (bool, error) {
	c, err := l.Take(ctx)
	return len(c.Of(ids)) > 0, err
}

// Kill ends every process that Running is about. A process that forks while it
// is being killed is caught by the next pass: none must be found twice in a row.
func (l *Looks) Kill(ctx context.Context, ids session.IDs) error {
	if ids.UID < 1000 || ids.First != 0 && ids.First < 1000 {
		return xos.Errorf(xos.Invalid, "uid %d with %d to %d is no grid user's", ids.UID, ids.First, ids.Last)
	}
	for clean := 0; clean < 2; {
		c, err := l.Take(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, pid := range c.Of(ids) {
			killed, err := killIf(pid, ids)
			if err != nil {
				return err
			}
			if killed {
				n++
			}
		}
		if clean++; n > 0 {
			clean = 0
		}
		if err := ctx.Err(); err != nil {
			return xos.Errorf(xos.Unavailable, "%d processes of uid %d do not end: %w", n, ids.UID, err)
		}
		if n > 0 {
			time.Sleep(5 * time.Millisecond) // between passes, while they die
		}
	}
	return nil
}
