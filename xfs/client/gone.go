package client

import (
	"context"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// impatience is a way out of waiting for a service.
type impatience struct {
	interrupted <-chan struct{}
	really      func() bool
}

type impatienceKey struct{}

// WithImpatience gives a context whose calls go on when interrupted, but stop
// waiting for a service that is away, with ErrInterrupted, if really() says
// that nobody waits for the answer any more.
func WithImpatience(ctx context.Context, interrupted <-chan struct{}, really func() bool) context.Context {
	return context.WithValue(ctx, impatienceKey{}, impatience{interrupted, really})
}

// ErrInterrupted ends a call whose caller has gone.
var ErrInterrupted error = &xos.Error{Kind: xos.Unavailable, Msg: "interrupted while waiting for a service"}

// gone reports whether nobody waits for a call's answer any more.
func gone(ctx context.Context) bool {
	way, _ := ctx.Value(impatienceKey{}).(impatience)
	select {
	case <-way.interrupted:
		return way.really()
	default:
		return false
	}
}

// look is how often it is seen whether an interrupted call's caller has gone;
// what is answered sooner is done to its end.
const look = 100 * time.Millisecond

// whenGone calls f once nobody waits for a call's answer any more, and then
// again and again, until stop.
func whenGone(ctx context.Context, f func()) (stop func()) {
	way, ok := ctx.Value(impatienceKey{}).(impatience)
	if !ok {
		return func() {}
	}
	stopped := make(chan struct{})
	go func() {
		select {
		case <-stopped:
			return
		case <-way.interrupted:
		}
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-tick.C:
			}
			if way.really() {
				f()
			}
		}
	}()
	return func() { close(stopped) }
}

// await is cond.Wait, with ErrInterrupted if nobody waits for the call. The
// condition's lock is held.
func await(ctx context.Context, cond *sync.Cond) error {
	if gone(ctx) {
		return ErrInterrupted
	}
	stop := whenGone(ctx, cond.Broadcast)
	cond.Wait()
	stop()
	return nil
}

// detached does f to its end, though the caller may go before.
func (c *Client) detached(ctx context.Context, in *inode, f func(context.Context) error) error {
	if _, ok := ctx.Value(impatienceKey{}).(impatience); !ok {
		return f(ctx)
	}
	c.mu.Lock()
	in.busy++
	c.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer c.done(in)
		done <- f(context.WithoutCancel(context.WithValue(ctx, impatienceKey{}, nil)))
	}()
	left := make(chan struct{}, 1)
	stop := whenGone(ctx, func() {
		select {
		case left <- struct{}{}:
		default:
		}
	})
	defer stop()
	select {
	case err := <-done:
		return err
	case <-left:
		return ErrInterrupted
	}
}
