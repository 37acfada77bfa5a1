// Package nats connects to the bus: it implements the contract on a NATS
// client. The server is infra/bus/natsd; a process that only talks does not
// link it.
package nats

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/wire"
)

// Config says where the bus is and who we are.
type Config struct {
	// Servers are host:port, tried in turn.
	Servers []string
	// Name must be the one the server's Authorize gives for our certificate;
	// under any other the server refuses all we send.
	Name string
	// TLS must present our certificate and check the server's.
	TLS *tls.Config
	Log *slog.Logger // discards
}

// handlersAtOnce bounds the running handlers of one subscription. More
// messages wait, and when too many wait some are lost, which Changed signals.
const handlersAtOnce = 128

// conn implements bus.Conn.
type conn struct {
	nc    *nats.Conn
	name  string
	inbox string // prefix of our reply addresses, with its last dot
	log   *slog.Logger

	changed chan struct{}
	ctx     context.Context // ends at Close: what handlers get
	end     context.CancelFunc

	mu       sync.Mutex
	closed   bool
	handlers sync.WaitGroup // added to under mu, while not closed
	asked    uint64         // numbers requests; only the connection's part of an inbox need be unguessable
	waiting  map[string]*gathering
}

var _ bus.Conn = (*conn)(nil)

// Connect makes one attempt, within ctx, before it returns. If that fails it
// goes on trying in the background, so an error means a wrong configuration;
// ask Connected. While there is no connection Publish fails with
// xos.Unavailable: old news is not delivered late.
func Connect(ctx context.Context, cfg Config) (bus.Conn, error) {
	if err := wire.CheckName(cfg.Name); err != nil {
		return nil, err
	}
	if cfg.TLS == nil || len(cfg.Servers) == 0 {
		return nil, xos.Errorf(xos.Invalid, "the bus connection needs a TLS configuration and a server")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &conn{
		name: cfg.Name, log: cfg.Log,
		inbox:   wire.Inbox(cfg.Name, rand.Text()),
		changed: make(chan struct{}, 1),
		waiting: map[string]*gathering{},
	}
	c.ctx, c.end = context.WithCancel(context.WithoutCancel(ctx))
	urls := make([]string, len(cfg.Servers))
	for i, s := range cfg.Servers {
		urls[i] = "tls://" + s
	}
	timeout := 2 * time.Second
	if end, ok := ctx.Deadline(); ok {
		timeout = max(min(timeout, time.Until(end)), time.Millisecond)
	}
	nc, err := nats.Connect(strings.Join(urls, ","), c.options(cfg, timeout)...)
	if err != nil {
		c.end()
		return nil, xos.Errorf(xos.Invalid, "connect to the bus at %s: %w", strings.Join(cfg.Servers, ", "), err)
	}
	c.nc = nc
	if _, err := nc.Subscribe(c.inbox+">", c.reply); err != nil {
		nc.Close()
		c.end()
		return nil, xos.Errorf(xos.Internal, "connect to the bus: %w", err)
	}
	return c, nil
}

func (c *conn) options(cfg Config, timeout time.Duration) []nats.Option {
	changed := func(what string) func(*nats.Conn) {
		return func(*nats.Conn) {
			c.log.Info("bus " + what)
			c.signal()
		}
	}
	return []nats.Option{
		nats.Name(cfg.Name), nats.Secure(cfg.TLS), nats.TLSHandshakeFirst(), nats.Timeout(timeout),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), nats.IgnoreDiscoveredServers(),
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(changed("connected")), nats.ReconnectHandler(changed("connected again")),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("bus connection lost", "err", err)
			}
			c.signal()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			// Asynchronous by nature: a refused subject, or messages lost
			// because handlers are slow.
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			c.log.Error("bus", "subject", subject, "err", err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				c.signal()
			}
		}),
	}
}

func (c *conn) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *conn) Connected() bool          { return c.nc.IsConnected() }
func (c *conn) Changed() <-chan struct{} { return c.changed }

// Publish implements bus.Conn.
func (c *conn) Publish(ctx context.Context, subject string, data []byte) error {
	return c.send(ctx, subject, "", data)
}

func (c *conn) send(ctx context.Context, subject, reply string, data []byte) error {
	if err := wire.Check(subject, false); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "publish %s: %w", subject, err)
	}
	err := c.nc.PublishMsg(&nats.Msg{Subject: wire.From(c.name, subject), Reply: reply, Data: data})
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return xos.Errorf(xos.TooLarge, "publish %d bytes on %s: %w", len(data), subject, err)
	case err != nil:
		return xos.Errorf(xos.Unavailable, "publish %s: %w", subject, err)
	}
	return nil
}

// Subscribe implements bus.Conn. When it returns and there is a connection,
// the server knows the subscription. That the server refuses the subject is
// only logged, since it tells it later.
func (c *conn) Subscribe(subject string, h bus.Handler) (func() error, error) {
	if err := wire.Check(subject, true); err != nil {
		return nil, err
	}
	slots := make(chan struct{}, handlersAtOnce)
	sub, err := c.nc.Subscribe(wire.FromAnyone(subject), func(m *nats.Msg) { c.deliver(m, h, slots) })
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "subscribe %s: %w", subject, err)
	}
	if c.Connected() {
		// A connection lost meanwhile subscribes again by itself.
		_ = c.nc.FlushTimeout(2 * time.Second)
	}
	return func() error {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			return xos.Errorf(xos.Unavailable, "unsubscribe %s: %w", subject, err)
		}
		return nil
	}, nil
}

// deliver runs the handler; it blocks while too many run.
func (c *conn) deliver(m *nats.Msg, h bus.Handler, slots chan struct{}) {
	from, subject, ok := wire.ParseMessage(m.Subject)
	if !ok {
		c.log.Warn("bus message with a malformed subject dropped", "subject", m.Subject)
		return
	}
	msg := bus.Message{Subject: subject, Data: m.Data, From: from}
	if m.Reply != "" && wire.IsInbox(m.Reply, from) {
		to := wire.Answer(m.Reply, c.name)
		msg.Respond = func(data []byte) error {
			if err := c.nc.Publish(to, data); err != nil {
				return xos.Errorf(xos.Unavailable, "answer a request on %s: %w", subject, err)
			}
			return nil
		}
	}
	select {
	case slots <- struct{}{}:
	case <-c.ctx.Done():
		return
	}
	if !c.enter() {
		return
	}
	go func() {
		defer c.handlers.Done()
		defer func() { <-slots }()
		h(c.ctx, msg)
	}()
}

func (c *conn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.handlers.Add(1)
	return true
}

// Close sends what was published, ends the handlers' context and waits for
// them; so no handler may call it.
func (c *conn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	if c.Connected() {
		_ = c.nc.FlushTimeout(time.Second) // best effort, as Publish is
	}
	c.end()
	c.nc.Close()
	c.handlers.Wait()
	c.signal()
	return nil
}
