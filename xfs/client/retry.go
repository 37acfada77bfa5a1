package client

import (
	"context"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

const (
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
)

// outage is the time that a service has been away. Its first Config.Retry are
// waited out; then those who ask get the error soon, until it answers again: a
// shell at a home that is away starts in seconds, not minutes for each file.
type outage struct {
	mu    sync.Mutex
	since time.Time // zero: it answers
	tried time.Time
	err   error
	shown any // what the service was shown when it failed
	// probing is set while the background work sees whether it is back.
	probing bool
}

// again is how often a service in a long outage is tried.
const again = 2 * time.Second

// known is the outage's error if it is too long to wait, and was seen just now
// by who showed what is shown now.
func (o *outage) known(longest time.Duration, shown func() any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.long(longest) && (o.probing || time.Since(o.tried) < again) && (shown == nil || o.shown == shown()) {
		return o.err
	}
	return nil
}

// due reports whether it is time to see if the service is back, which the
// caller then does, and notes.
func (o *outage) due() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() || o.probing || time.Since(o.tried) < again {
		return false
	}
	o.probing = true
	return true
}

// probe sees whether the MRC is back, if it is away.
func (c *Client) probe(ctx context.Context, work *sync.WaitGroup) {
	o := &c.mrcAway
	if !o.due() {
		return
	}
	work.Go(func() {
		attempt, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
		defer cancel()
		_, err := c.mrc.Statfs(attempt)
		o.note(err, c.cfg.Retry, c.deps.Shown)
		o.mu.Lock()
		o.probing = false
		o.mu.Unlock()
	})
}

func (o *outage) long(longest time.Duration) bool {
	return !o.since.IsZero() && time.Since(o.since) > longest
}

// note takes the end of an attempt, and reports whether to wait no longer.
func (o *outage) note(err error, longest time.Duration, shown func() any) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !away(err) {
		o.since = time.Time{}
		return true
	}
	now := time.Now()
	if o.since.IsZero() || now.Sub(o.tried) > longest { // or long ago
		o.since = now
	}
	o.tried, o.err = now, err
	if shown != nil {
		o.shown = shown()
	}
	return o.long(longest)
}

// away reports whether an error may pass: the service does not answer, or the
// credential it was shown has run out, which the session service renews.
func away(err error) bool { return xos.Is(err, xos.Unavailable) || xos.Is(err, xos.Expired) }

// retry asks the MRC until it answers, as long as it is merely away and has
// not been for long.
func (c *Client) retry(ctx context.Context, call func(context.Context) error) error {
	return c.ask(ctx, &c.mrcAway, call)
}

// ask is retry for the service of an outage.
func (c *Client) ask(ctx context.Context, o *outage, call func(context.Context) error) error {
	if err := o.known(c.cfg.Retry, c.deps.Shown); err != nil {
		return err
	}
	return c.until(ctx, call, func(err error) bool { return o.note(err, c.cfg.Retry, c.deps.Shown) })
}

// persist is for data that would be lost: it waits Config.Retry from now,
// however long the service has been away.
func (c *Client) persist(ctx context.Context, call func(context.Context) error) error {
	var first time.Time
	return c.until(ctx, call, func(err error) bool {
		if first.IsZero() {
			first = time.Now()
		}
		return !away(err) || time.Since(first) > c.cfg.Retry
	})
}

// until does call until enough says so of its outcome.
func (c *Client) until(ctx context.Context, call func(context.Context) error, enough func(error) bool) error {
	wait := firstWait
	for {
		attempt, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
		stop := whenGone(ctx, cancel)
		err := call(attempt)
		stop()
		cancel()
		if away(err) && gone(ctx) {
			return ErrInterrupted
		}
		if ctx.Err() != nil || enough(err) {
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
	select {
	case <-timer.C:
		return !gone(ctx)
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
