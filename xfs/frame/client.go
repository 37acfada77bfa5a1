package frame

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// Dial makes a connection that is ready for use: with TLS, after its handshake.
type Dial func(ctx context.Context) (net.Conn, error)

// Times of a client's connection.
const (
	dialTimeout  = 10 * time.Second
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 2 * time.Second
	pingAfter    = 5 * time.Second  // of silence while an answer is awaited
	breakAfter   = 20 * time.Second // of silence: the peer is gone
	writeTimeout = 30 * time.Second // for one frame
)

// Client speaks to one server over one connection, which it makes when it is
// first needed and again after it broke. A request is sent once: if the
// connection breaks before its answer, it fails with xos.Unavailable, and
// whether it was done is not known. Safe for concurrent use.
type Client struct {
	dial  Dial
	slots chan struct{} // one for each request in flight

	mu      sync.Mutex
	conn    *clientConn
	dialing chan struct{} // closed when the attempt under way has ended
	backoff time.Duration
	notYet  time.Time // no attempt before this
	closed  bool
	follow  follow
}

// NewClient makes a client; nothing is dialled yet.
func NewClient(dial Dial) *Client {
	return &Client{dial: dial, slots: make(chan struct{}, maxInFlight)}
}

// Close breaks the connection; requests in flight fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.fail(unavailable(nil, "connection closed"))
	}
	return nil
}

// Call is one request. Head and Bulk are not touched after Do returned.
type Call struct {
	Op   Op
	Head []byte
	Bulk []byte
	// Into receives the bulk of the reply; more than fits is an error.
	Into []byte
}

// Do sends a request and waits for its reply; result is called with the
// reply's head, which is valid only during the call. It gives the number of
// bytes put into Into.
func (c *Client) Do(ctx context.Context, call Call, result func(head []byte) error) (int, error) {
	if len(call.Head) > MaxHead || len(call.Bulk) > MaxBulk {
		return 0, xos.Errorf(xos.TooLarge, "request of %d+%d bytes", len(call.Head), len(call.Bulk))
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return 0, unavailable(ctx.Err(), "too many requests wait for the server")
	}
	for remade := false; ; {
		conn, err := c.connected(ctx)
		if err != nil {
			return 0, err
		}
		n, err := conn.do(ctx, call, result)
		switch {
		case err == errRetired:
		case xos.Is(err, xos.Expired) && !remade && c.remake(ctx, conn):
			remade = true // refused and not done, so it may be sent again
		default:
			return n, err
		}
	}
}

// connected gives the connection, or makes one attempt to get it.
func (c *Client) connected(ctx context.Context) (*clientConn, error) {
	for {
		c.mu.Lock()
		switch {
		case c.closed:
			c.mu.Unlock()
			return nil, unavailable(nil, "connection closed")
		case c.conn != nil && c.conn.broken() == nil:
			defer c.mu.Unlock()
			c.renew()
			return c.conn, nil
		case c.dialing == nil:
			c.dialing = make(chan struct{})
			wait := time.Until(c.notYet)
			if c.follow.now() != c.follow.tried {
				wait = 0
			}
			c.mu.Unlock()
			return c.attempt(ctx, wait)
		}
		dialing := c.dialing
		c.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, unavailable(ctx.Err(), "no connection yet")
		}
	}
}

func (c *Client) attempt(ctx context.Context, wait time.Duration) (*clientConn, error) {
	shown := c.follow.now()
	conn, err := c.try(ctx, wait)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.dialing)
	c.dialing = nil
	if err == nil || ctx.Err() == nil { // else who asked gave up: nothing is known
		c.follow.tried, c.follow.failed, c.follow.attempted = shown, err != nil, time.Now()
	}
	if err != nil {
		if ctx.Err() == nil {
			c.backoff = min(max(2*c.backoff, firstBackoff), lastBackoff)
			c.notYet = time.Now().Add(c.backoff)
		}
		if xos.KindOf(err) == xos.Internal {
			err = unavailable(err, "cannot connect to the server")
		}
		return nil, err
	}
	c.backoff = 0
	cc := newClientConn(conn)
	if c.closed {
		cc.fail(unavailable(nil, "connection closed"))
	}
	if c.conn != nil {
		c.conn.retire()
	}
	c.conn, c.follow.shown = cc, shown
	return cc, nil
}

func (c *Client) try(ctx context.Context, wait time.Duration) (net.Conn, error) {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, unavailable(ctx.Err(), "the server could not be reached just now")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.dial(ctx)
}
