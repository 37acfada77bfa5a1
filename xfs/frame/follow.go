package frame

import (
	"context"
	"time"
)

// follow is how a client keeps its connection up with its identity.
type follow struct {
	identity  func() any
	shown     any // when the connection was made
	looked    time.Time
	tried     any  // what the last attempt was made with
	failed    bool // that attempt, which ended then; the next with the same waits
	attempted time.Time
}

// lookEvery is how often the identity is looked at where requests are made;
// lookAfterError is how long one waits that was refused.
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
	f := &c.follow
	if f.identity == nil || c.dialing != nil || time.Since(f.looked) < lookEvery {
		return
	}
	f.looked = time.Now()
	if !c.stale() {
		return
	}
	c.dialing = make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		c.attempt(ctx, 0)
	}()
}

// stale reports whether the present connection was made with another identity
// than there is now, and it is time to try with that. mu is held.
func (c *Client) stale() bool {
	f := &c.follow
	now := f.now()
	if now == f.shown {
		f.failed = false
		return false
	}
	return !f.failed || now != f.tried || time.Since(f.attempted) >= lookAfterError
}

// remake makes a connection anew on which a request was refused because what
// was shown on it had run out, if there is something newer to show: who has just
// got a credential shall not be refused for the old one. It reports whether
// there is another one now.
func (c *Client) remake(ctx context.Context, old *clientConn) bool {
	for {
		c.mu.Lock()
		dialing := c.dialing
		switch {
		case c.conn != old:
			c.mu.Unlock()
			return true
		case dialing != nil:
			c.mu.Unlock()
			select {
			case <-dialing:
			case <-ctx.Done():
				return false
			}
		case c.closed || !c.stale():
			c.mu.Unlock()
			return false
		default:
			c.dialing = make(chan struct{})
			c.mu.Unlock()
			if _, err := c.attempt(ctx, 0); err != nil {
				return false
			}
		}
	}
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
