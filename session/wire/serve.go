package wire

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// Limits on simultaneous connections: one user's processes cannot shut out
// the others', nor all of them root's.
const (
	perUser = 16
	perRoot = 256
	inAll   = 1024
)

// showTime is how long a client may take to show a refusal.
const showTime = 2 * time.Second

// requestTime is how long a client may take to send its request: a moment, but for
// a machine that others eat.
const requestTime = 3 * time.Second

// Serve answers requests on l until ctx ends, which closes l and every
// connection; it returns nil then, after the last request has been answered
// or given up.
func Serve(ctx context.Context, l *net.UnixListener, h Handler, log *slog.Logger) error {
	s := &server{h: h, log: log, users: map[uint32]int{}}
	ctx, cancel := context.WithCancel(ctx)
	defer s.wait.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return xos.Errorf(xos.Unavailable, "socket of the modules was closed: %w", err)
		}
		if err != nil { // out of descriptors or memory: others may free some
			log.Warn("accepting a connection", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		s.accept(ctx, c)
	}
}

// server counts connections and complaints. It holds mu only to count.
type server struct {
	h   Handler
	log *slog.Logger

	wait  sync.WaitGroup
	mu    sync.Mutex
	all   int
	users map[uint32]int
	since time.Time
	said  map[uint32]int // complaints of a user's processes since then
}

// Of what a user's processes do wrong there are so many lines a minute: any
// process may come here as often as it likes.
const (
	complaints      = 10
	complaintsEvery = time.Minute
)

// complain says what a client did wrong.
func (s *server) complain(p Peer, what string, err error) {
	s.mu.Lock()
	if now := time.Now(); s.said == nil || now.Sub(s.since) >= complaintsEvery {
		s.since, s.said = now, map[uint32]int{}
	}
	s.said[p.UID]++
	n := s.said[p.UID]
	s.mu.Unlock()
	switch {
	case n < complaints:
		s.log.Warn(what, "uid", p.UID, "pid", p.PID, "err", err)
	case n == complaints:
		s.log.Warn(what+"; more of this uid are not told for a minute", "uid", p.UID, "pid", p.PID, "err", err)
	}
}

func (s *server) accept(ctx context.Context, c *net.UnixConn) {
	p, err := peerOf(c)
	if err != nil || !s.enter(p.UID) {
		s.complain(p, "connection refused", err)
		closePeer(p)
		c.Close()
		return
	}
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		defer s.leave(p.UID)
		defer closePeer(p)
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
		defer stop()
		s.serve(ctx, c, p)
	}()
}

func (s *server) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := perUser
	if uid == 0 {
		most = perRoot
	}
	if s.users[uid] >= most || s.all >= inAll {
		return false
	}
	s.all++
	s.users[uid]++
	return true
}

func (s *server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
	}
}

// serve reads one request and answers it.
func (s *server) serve(ctx context.Context, c *net.UnixConn, p Peer) {
	c.SetDeadline(time.Now().Add(requestTime))
	var head [headerSize]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return // nothing to answer: the client has gone, or never spoke
	}
	hd, err := parseHeader(head[:])
	if err != nil || hd.status != 0 {
		s.complain(p, "malformed request", err)
		return
	}
	body := make([]byte, hd.length)
	if _, err := io.ReadFull(c, body); err != nil {
		return
	}
	if ctx.Err() != nil {
		return
	}
	c.SetDeadline(time.Now().Add(hd.op.patience()))
	ctx, cancel := context.WithTimeout(ctx, hd.op.patience())
	defer cancel()

	r := s.answer(ctx, p, hd.op, body)
	defer r.close()
	if r.refused != nil {
		defer r.refused()
	}
	clear(body) // there may be a password in it
	if r.err != nil && statusOf(r.err) == stInternal {
		s.log.Error("request failed", "op", hd.op, "uid", p.UID, "pid", p.PID, "err", r.err)
	}
	if err := s.send(c, hd.op, r); err != nil && r.undo != nil {
		s.log.Warn("reply could not be delivered", "op", hd.op, "pid", p.PID, "err", err)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opPAMClose.patience())
		defer cancel()
		r.undo(ctx)
	}
	if r.refused != nil && ctx.Err() == nil {
		awaitEnd(c)
	}
}

// awaitEnd returns when the client has hung up, at the latest after showTime. One
// that goes on talking has ended its turn, too.
func awaitEnd(c *net.UnixConn) {
	c.SetDeadline(time.Now().Add(showTime))
	_, _ = c.Read(make([]byte, 1))
}

// send writes the reply; one that cannot be encoded becomes an internal error.
func (s *server) send(c *net.UnixConn, o op, r reply) error {
	b, err := message(o, stOK, r.body)
	if r.err != nil {
		err = r.err
	}
	if err != nil {
		var e encoder
		e.str(userText(err))
		b, _ = message(o, statusOf(err), e.b)
		if werr := writeAll(c, b, nil); werr != nil {
			return werr
		}
		return err
	}
	return writeAll(c, b, r.file)
}

// userText is what the user may read of an error.
func userText(err error) string {
	text := "the session service of this machine has failed; its log says why"
	if xos.KindOf(err) != xos.Internal {
		text = err.Error()
	}
	clean := make([]byte, 0, maxMessage)
	for i := 0; i < len(text) && len(clean) < maxMessage; i++ {
		c := text[i]
		if c < ' ' && c != '\n' || c == 0x7f {
			c = '?'
		}
		clean = append(clean, c)
	}
	return string(clean)
}
