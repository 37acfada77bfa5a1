package frame

import (
	"context"
	"time"
)

// follow is how a client keeps its connection up with its identity.
type follow struct {
	identity func() any
	shown    any // when the connection was made
	looked   time.Time
	failed   bool // the last attempt; then it waits
}

// lookEvery is how often the identity is looked at where requests are made,
// again after an attempt that failed.
const (
	lookEvery      = time.Second
	lookAfterError = 10 * time.Second
)

// Follow has a client make a new connection when its identity, a certificate
// that has been renewed, is no longer the one that the present connection was
// made with: servers judge a connection by what was shown on it. The old one
// serves until the new one is there, and until its requests are answered. It
// must be called before the first request; nil changes nothing.
func (c *Client) Follow(identity func() any) { c.follow.identity = identity }

func (f *follow) now() any {
	if f.identity == nil {
		return nil
	}
	return f.identity()
}

// renew begins to make a new connection if it is time to. mu is held, and there
// is a connection.
func (c *Client) renew() {
	f, wait := &c.follow, lookEvery
	if f.failed {
		wait = lookAfterError
	}
	if f.identity == nil || c.dialing != nil || time.Since(f.looked) < wait {
		return
	}
	f.looked = time.Now()
	if f.identity() == f.shown {
		f.failed = false
		return
	}
	c.dialing = make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		_, err := c.attempt(ctx, 0)
		c.mu.Lock()
		f.failed = err != nil
		c.mu.Unlock()
	}()
}

// errRetired is why a connection was left for a new one. Whoever gets it has not
// sent anything.
var errRetired = unavailable(nil, "the connection was made anew")

// givenUp is why a retired connection is broken under those who wait on it: who
// gave up a request may repeat it by the new one, and what is still on its way
// on the old one must not come after that.
const givenUp = "a request was given up while the connection was made anew"

// retire ends a connection when nobody waits for an answer on it any more.
func (c *clientConn) retire() {
	c.mu.Lock()
	c.retired = true
	given := c.given > 0
	c.mu.Unlock()
	if given {
		c.fail(unavailable(nil, givenUp))
	}
	c.endIfRetired()
}

func (c *clientConn) endIfRetired() {
	c.mu.Lock()
	over := c.retired && len(c.waiting) == 0 && !c.reading && c.err == nil
	if over {
		c.err, c.waiting = errRetired, nil
		close(c.done)
	}
	c.mu.Unlock()
	if over {
		abort(c.Conn)
	}
}
