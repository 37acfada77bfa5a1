package frame

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// clientConn is one connection's life.
type clientConn struct {
	net.Conn
	write sync.Mutex // held for a whole frame

	mu      sync.Mutex
	waiting map[uint64]*waiter
	next    uint64
	heard   time.Time
	given   int   // requests given up that were not answered yet
	retired bool  // see retire
	reading bool  // a reply, into the memory of who asked
	err     error // why it broke
	done    chan struct{}
}

// waiter is a request without its reply. Whoever takes it out of the map
// either is its own goroutine or must close done.
type waiter struct {
	into []byte
	code uint8
	head *buffer
	n    int
	err  error
	done chan struct{}
}

func newClientConn(conn net.Conn) *clientConn {
	c := &clientConn{Conn: conn, waiting: map[uint64]*waiter{}, heard: time.Now(), done: make(chan struct{})}
	go c.receive()
	go c.watch()
	return c
}

func (c *clientConn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *clientConn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	waiting := c.waiting
	c.waiting = nil
	close(c.done)
	c.mu.Unlock()
	abort(c.Conn)
	for _, w := range waiting {
		w.err = err
		close(w.done)
	}
}

// abort closes a connection, and drops what the network has not yet taken: a
// request that failed here must not arrive later, after its repetition.
func abort(conn net.Conn) {
	raw := conn
	if t, ok := conn.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if t, ok := raw.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	raw.Close()
	conn.Close()
}

func (c *clientConn) do(ctx context.Context, call Call, result func([]byte) error) (int, error) {
	w := &waiter{into: call.Into, done: make(chan struct{})}
	var timeout uint32
	if d, ok := ctx.Deadline(); ok {
		timeout = uint32(min(max(time.Until(d).Milliseconds(), 1), 1<<31))
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, c.err
	}
	if len(c.waiting) == 0 {
		c.heard = time.Now()
	}
	c.next++
	id := c.next
	c.waiting[id] = w
	c.mu.Unlock()

	h := header{size: uint32(len(call.Head) + len(call.Bulk)), head: uint32(len(call.Head)),
		id: id, code: uint8(call.Op), timeout: timeout}
	if err := c.send(h, call.Head, call.Bulk); err != nil {
		c.fail(unavailable(err, "the connection to the server broke"))
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		c.mu.Lock()
		_, mine := c.waiting[id]
		delete(c.waiting, id)
		retired := c.retired
		if mine {
			c.given++
		}
		c.mu.Unlock()
		switch {
		case mine && retired:
			c.fail(unavailable(ctx.Err(), givenUp))
			return 0, unavailable(ctx.Err(), "no answer from the server in time")
		case mine:
			go c.send(header{id: id, code: uint8(opCancel)}, nil, nil)
			return 0, unavailable(ctx.Err(), "no answer from the server in time")
		}
		<-w.done // the reply is being read into our buffer
	}
	defer w.head.free()
	if w.err != nil {
		return 0, w.err
	}
	if w.code != 0 {
		var f failure
		if err := decode(w.head.b, &f); err != nil {
			return 0, err
		}
		return 0, errorOf(w.code, f)
	}
	return w.n, result(w.head.b)
}

func (c *clientConn) send(h header, head, bulk []byte) error {
	buf := getBuffer(HeaderSize + len(head))
	defer buf.free()
	buf.b = appendFrame(buf.b[:0], h, head)
	c.write.Lock()
	defer c.write.Unlock()
	return writeFrame(c.Conn, buf.b, bulk)
}

func writeFrame(conn net.Conn, start, bulk []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(start); err != nil {
		return err
	}
	if len(bulk) > 0 {
		if _, err := conn.Write(bulk); err != nil {
			return err
		}
	}
	return nil
}

func (c *clientConn) receive() {
	r := bufio.NewReaderSize(c.Conn, 16<<10)
	for {
		if err := c.receiveOne(r); err != nil {
			c.fail(unavailable(err, "the connection to the server broke"))
			return
		}
	}
}

func (c *clientConn) receiveOne(r *bufio.Reader) error {
	h, err := readHeader(r)
	if err != nil {
		return err
	}
	c.mu.Lock()
	w := c.waiting[h.id]
	delete(c.waiting, h.id)
	if w == nil && h.id != 0 && c.given > 0 {
		c.given--
	}
	c.heard, c.reading = time.Now(), true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.reading = false
		c.mu.Unlock()
		c.endIfRetired()
	}()
	if w == nil { // no longer wanted
		_, err := io.CopyN(io.Discard, r, int64(h.size))
		return err
	}
	w.code = h.code
	w.head = getBuffer(int(h.head))
	if _, err = io.ReadFull(r, w.head.b); err == nil && h.bulk() > 0 {
		if h.bulk() > len(w.into) {
			err = xos.Errorf(xos.Invalid, "reply with %d bytes, %d wanted", h.bulk(), len(w.into))
		} else {
			w.n, err = io.ReadFull(r, w.into[:h.bulk()])
		}
	}
	if err != nil {
		w.err = unavailable(err, "the connection to the server broke")
	}
	close(w.done)
	return err
}

// watch breaks a connection whose peer has gone without a word.
func (c *clientConn) watch() {
	t := time.NewTicker(pingAfter)
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		c.endIfRetired()
		c.mu.Lock()
		waits, silent := len(c.waiting) > 0, time.Since(c.heard)
		c.mu.Unlock()
		switch {
		case waits && silent > breakAfter:
			c.fail(unavailable(nil, "the server does not answer"))
		case waits && silent > pingAfter && c.write.TryLock():
			// Else a frame is being written, which does not wait for ever.
			c.write.Unlock()
			if err := c.send(header{code: uint8(opPing)}, nil, nil); err != nil {
				c.fail(unavailable(err, "the connection to the server broke"))
			}
		}
	}
}
