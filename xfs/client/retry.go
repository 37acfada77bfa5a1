package client

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

const (
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
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

// retry does call until it answers, as long as the service is merely away.
func (c *Client) retry(ctx context.Context, call func(context.Context) error) error {
	var deadline time.Time
	wait := firstWait
	for {
		attempt, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
		err := call(attempt)
		cancel()
		if err == nil || !xos.Is(err, xos.Unavailable) || ctx.Err() != nil {
			return err
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(c.cfg.Retry)
		} else if now.After(deadline) {
			return err
		}
		if !pause(ctx, wait) {
			return ErrInterrupted
		}
		wait = min(2*wait, lastWait)
	}
}

// pause waits; false if nobody waits for us.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	way, _ := ctx.Value(impatienceKey{}).(impatience)
	select {
	case <-timer.C:
		select {
		case <-way.interrupted:
			return !way.really()
		default:
			return true
		}
	case <-ctx.Done():
		return false
	}
}

// retry1 is retry for calls with a result.
func retry1[T any](ctx context.Context, c *Client, call func(context.Context) (T, error)) (T, error) {
	var result T
	err := c.retry(ctx, func(ctx context.Context) error {
		var err error
		result, err = call(ctx)
		return err
	})
	return result, err
}
