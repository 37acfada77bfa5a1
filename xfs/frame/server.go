package frame

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/xtreemos/xos"
)

const (
	handshakeTimeout = 10 * time.Second
	bodyTimeout      = 60 * time.Second // from a frame's header to its end
)

// Peer is who is at the other end of a connection.
type Peer struct {
	// Chain is what the peer showed in the TLS handshake, leaf first; the
	// handshake proved that it has the leaf's key. Empty without TLS.
	Chain []*x509.Certificate
	// Fingerprint is the leaf's SHA-256: a key for caches.
	Fingerprint [sha256.Size]byte
	Address     string
}

// Request is one call. Head and Bulk are valid until the handler returns.
type Request struct {
	Peer *Peer
	Head []byte
	Bulk []byte
}

// Reply is an answer. Done, if set, is called when it has been sent.
type Reply struct {
	Head []byte
	Bulk []byte
	Done func()
}

// Handler answers one kind of request. It runs in a goroutine of its own; ctx
// ends when the client no longer waits.
type Handler func(ctx context.Context, r *Request) (Reply, error)

// Server answers requests.
type Server struct {
	log      *slog.Logger
	handlers map[Op]Handler
}

// NewServer makes a server of these operations.
func NewServer(log *slog.Logger, handlers map[Op]Handler) *Server {
	return &Server{log, handlers}
}

// Serve accepts connections (of a TLS listener, where peers matter) until ctx
// ends; then it closes the listener and all connections, waits for the
// handlers and gives nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isShortage(err) {
				s.log.Warn("cannot accept a connection", "err", err)
				time.Sleep(100 * time.Millisecond) // descriptors may become free
				continue
			}
			return xos.Errorf(xos.Internal, "accept on %s: %w", l.Addr(), err)
		}
		conns.Go(func() { s.serve(ctx, conn) })
	}
}

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer cancel()
	peer, err := handshake(ctx, conn)
	if err != nil {
		s.log.Info("connection refused", "from", conn.RemoteAddr(), "err", err)
		return
	}
	c := &serverConn{Conn: conn, server: s, peer: peer, cancels: map[uint64]context.CancelFunc{},
		slots: make(chan struct{}, 2*maxInFlight)}
	err = c.loop(ctx)
	cancel()
	c.running.Wait()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && xos.KindOf(err) == xos.Invalid {
		s.log.Warn("connection cut", "from", peer.Address, "err", err)
	}
}

func handshake(ctx context.Context, conn net.Conn) (*Peer, error) {
	p := &Peer{Address: conn.RemoteAddr().String()}
	t, ok := conn.(*tls.Conn)
	if !ok {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	p.Chain = t.ConnectionState().PeerCertificates
	if len(p.Chain) > 0 {
		p.Fingerprint = sha256.Sum256(p.Chain[0].Raw)
	}
	return p, nil
}

type serverConn struct {
	net.Conn
	server  *Server
	peer    *Peer
	slots   chan struct{}
	running sync.WaitGroup
	write   sync.Mutex

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

func (c *serverConn) loop(ctx context.Context) error {
	r := bufio.NewReaderSize(c.Conn, 16<<10)
	for {
		c.Conn.SetReadDeadline(time.Time{})
		h, err := readHeader(r)
		if err != nil {
			return err
		}
		if h.size > 0 {
			c.Conn.SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		switch op := Op(h.code); op {
		case opCancel, opPing:
			if h.size != 0 {
				return xos.Errorf(xos.Invalid, "malformed frame")
			}
			if op == opPing {
				if err := c.send(header{id: h.id}, nil, nil); err != nil {
					return err
				}
				continue
			}
			c.mu.Lock()
			cancel := c.cancels[h.id]
			c.mu.Unlock()
			if cancel != nil {
				cancel()
			}
			continue
		}
		head, bulk := getBuffer(int(h.head)), getBuffer(h.bulk())
		if _, err = io.ReadFull(r, head.b); err == nil {
			_, err = io.ReadFull(r, bulk.b)
		}
		if err != nil {
			return err
		}
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.start(ctx, h, head, bulk); err != nil {
			return err
		}
	}
}

func (c *serverConn) start(ctx context.Context, h header, head, bulk *buffer) error {
	var cancel context.CancelFunc
	if h.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.timeout)*time.Millisecond)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	c.mu.Lock()
	_, twice := c.cancels[h.id]
	if !twice {
		c.cancels[h.id] = cancel
	}
	c.mu.Unlock()
	if twice {
		cancel()
		return xos.Errorf(xos.Invalid, "request id used twice at a time")
	}
	c.running.Go(func() {
		c.handle(ctx, h, head, bulk)
		c.mu.Lock()
		delete(c.cancels, h.id)
		c.mu.Unlock()
		cancel()
		<-c.slots
	})
	return nil
}

func (c *serverConn) handle(ctx context.Context, h header, head, bulk *buffer) {
	defer head.free()
	defer bulk.free()
	reply, err := c.answer(ctx, Op(h.code), &Request{Peer: c.peer, Head: head.b, Bulk: bulk.b})
	if reply.Done != nil {
		defer reply.Done()
	}
	out := header{id: h.id}
	if err == nil && (len(reply.Head) > MaxHead || len(reply.Bulk) > MaxBulk) {
		err = xos.Errorf(xos.Internal, "reply of %d+%d bytes", len(reply.Head), len(reply.Bulk))
	}
	if err != nil {
		var f failure
		out.code, f = statusOf(err)
		if xos.KindOf(err) == xos.Internal {
			c.server.log.Error("request failed", "op", h.code, "from", c.peer.Address, "err", err)
		}
		reply.Head, _ = encode(nil, &f)
		reply.Bulk = nil
	}
	out.head = uint32(len(reply.Head))
	out.size = out.head + uint32(len(reply.Bulk))
	if err := c.send(out, reply.Head, reply.Bulk); err != nil {
		c.Conn.Close() // ends the loop, too
	}
}

func (c *serverConn) answer(ctx context.Context, op Op, r *Request) (reply Reply, err error) {
	f := c.server.handlers[op]
	if f == nil {
		return reply, xos.Errorf(xos.NotSupported, "this server knows no operation %d", op).WithHint("is it of the same version?")
	}
	return f(ctx, r)
}

func (c *serverConn) send(h header, head, bulk []byte) error {
	buf := getBuffer(HeaderSize + len(head))
	defer buf.free()
	buf.b = appendFrame(buf.b[:0], h, head)
	c.write.Lock()
	defer c.write.Unlock()
	return writeFrame(c.Conn, buf.b, bulk)
}

// isShortage tells a passing lack of descriptors from a broken listener.
func isShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}
