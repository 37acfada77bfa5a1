package nats

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/wire"
)

// gathering is one request that waits for replies.
type gathering struct {
	replies chan bus.Message // as many as are wanted; more are dropped
	nobody  chan struct{}    // closed when the server says that none listens
	told    atomic.Bool
}

// reply takes what arrives in the inbox.
func (c *conn) reply(m *nats.Msg) {
	request, from, ok := wire.ParseReply(m.Subject, c.inbox)
	if !ok {
		return
	}
	c.mu.Lock()
	g := c.waiting[request]
	c.mu.Unlock()
	if g == nil {
		return // too late
	}
	if from == "" {
		if m.Header.Get("Status") == "503" && !g.told.Swap(true) {
			close(g.nobody)
		}
		return
	}
	select {
	case g.replies <- bus.Message{Data: m.Data, From: from}:
	default:
	}
}

// ask sends a request; done must be called.
func (c *conn) ask(ctx context.Context, subject string, data []byte, max int) (g *gathering, done func(), err error) {
	g = &gathering{replies: make(chan bus.Message, max), nobody: make(chan struct{})}
	c.mu.Lock()
	c.asked++
	request := strconv.FormatUint(c.asked, 10)
	c.waiting[request] = g
	c.mu.Unlock()
	done = func() {
		c.mu.Lock()
		delete(c.waiting, request)
		c.mu.Unlock()
	}
	if err := c.send(ctx, subject, c.inbox+request, data); err != nil {
		done()
		return nil, nil, err
	}
	return g, done, nil
}

// Request implements bus.Conn.
func (c *conn) Request(ctx context.Context, subject string, data []byte) (bus.Message, error) {
	g, done, err := c.ask(ctx, subject, data, 1)
	if err != nil {
		return bus.Message{}, err
	}
	defer done()
	select {
	case m := <-g.replies:
		m.Subject = subject
		return m, nil
	case <-g.nobody:
		return bus.Message{}, xos.Errorf(xos.Unavailable, "nobody listens on %s", subject)
	case <-ctx.Done():
		return bus.Message{}, xos.Errorf(xos.Unavailable, "nobody answered on %s: %w", subject, ctx.Err())
	case <-c.ctx.Done():
		return bus.Message{}, xos.Errorf(xos.Unavailable, "request %s: the bus connection is closed", subject)
	}
}

// Gather implements bus.Conn. That ctx ends early is no error: what has come
// until then is given.
func (c *conn) Gather(ctx context.Context, subject string, data []byte, max int, wait time.Duration) ([]bus.Message, error) {
	if max <= 0 || max > 100_000 {
		return nil, xos.Errorf(xos.Invalid, "gather %d replies", max)
	}
	g, done, err := c.ask(ctx, subject, data, max)
	if err != nil {
		return nil, err
	}
	defer done()
	end := time.NewTimer(wait)
	defer end.Stop()
	var got []bus.Message
	for len(got) < max {
		select {
		case m := <-g.replies:
			m.Subject = subject
			got = append(got, m)
		case <-g.nobody:
			return got, nil
		case <-end.C:
			return got, nil
		case <-ctx.Done():
			return got, nil
		case <-c.ctx.Done():
			return got, nil
		}
	}
	return got, nil
}
