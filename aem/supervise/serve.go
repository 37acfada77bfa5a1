package supervise

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func (u *Unit) listen() (*net.UnixListener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(u.dir, unit.SocketFile), Net: "unix"})
}

// serve answers until the listener is closed, then until the readers have had
// everything or ctx ends.
func (u *Unit) serve(ctx context.Context, l *net.UnixListener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, say
			continue
		}
		conns.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			if err := u.attend(ctx, c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				u.log.Debug("a reader left", "job", u.spec.Job, "error", err)
			}
		})
	}
}

// client is one connection. Frames are written whole, under mu.
type client struct {
	u    *Unit
	conn *net.UnixConn
	mu   sync.Mutex
	done int64 // signals that took effect
	news chan struct{}
}

func (c *client) send(m *xosv1.FromJob) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return unit.WriteFrame(c.conn, m)
}

// attend speaks with one client until it leaves or the job has ended and it
// knows all.
func (u *Unit) attend(ctx context.Context, conn *net.UnixConn) error {
	if uid, err := peerUID(conn); err != nil || uid != 0 {
		return xos.Errorf(xos.Permission, "uid %d may not attach", uid)
	}
	r := bufio.NewReader(conn)
	var hello xosv1.ToJob
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := unit.ReadFrame(r, &hello); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Time{})
	if xos.JobID(hello.Job) != u.spec.Job {
		return xos.Errorf(xos.NotFound, "this is %s, not %.80q", u.spec.Job, hello.Job)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &client{u: u, conn: conn, news: make(chan struct{}, 1)}

	var streams sync.WaitGroup
	defer streams.Wait()
	defer conn.Close()
	flushed := make(chan struct{})
	if hello.Watch {
		close(flushed)
	} else {
		var out sync.WaitGroup
		out.Go(func() { c.stream(ctx, u.stdout, hello.StdoutFrom, false) })
		out.Go(func() { c.stream(ctx, u.stderr, hello.StderrFrom, true) })
		streams.Go(func() { out.Wait(); close(flushed) })
	}
	streams.Go(func() {
		defer cancel()
		defer conn.Close()
		c.tell(ctx, flushed)
	})
	if err := c.obey(&hello); err != nil {
		return err
	}
	for {
		var m xosv1.ToJob
		if err := unit.ReadFrame(r, &m); err != nil {
			cancel()
			return err
		}
		if err := c.obey(&m); err != nil {
			cancel()
			return err
		}
	}
}

// obey does what a frame asks.
func (c *client) obey(m *xosv1.ToJob) error {
	u := c.u
	if !m.Watch {
		u.stdout.Ack(m.StdoutFrom)
		u.stderr.Ack(m.StderrFrom)
	}
	if len(m.Stdin) > 0 || m.StdinEof {
		if err := u.stdin.take(m.StdinOffset, m.Stdin, m.StdinEof); err != nil {
			return err
		}
	}
	if u.tty != nil && m.Rows > 0 && m.Columns > 0 {
		raw, err := u.tty.SyscallConn()
		if err == nil {
			raw.Control(func(fd uintptr) {
				unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(m.Rows), Col: uint16(m.Columns)})
			})
		}
	}
	if m.Signal != 0 {
		if err := u.signal(int(m.Signal)); err != nil {
			return c.send(&xosv1.FromJob{Notice: err.Error(), SignalFailed: true})
		}
		c.mu.Lock()
		c.done++
		c.mu.Unlock()
		c.wake()
	}
	return nil
}

func (c *client) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// stream sends one output from an offset on.
func (c *client) stream(ctx context.Context, s *unit.Spool, from int64, isErr bool) {
	buf := make([]byte, unit.MaxData)
	for {
		n, at, err := s.ReadFrom(ctx, from, buf)
		if err != nil {
			return
		}
		m := &xosv1.FromJob{Offset: at}
		if isErr {
			m.Stderr = buf[:n]
		} else {
			m.Stdout = buf[:n]
		}
		if err := c.send(m); err != nil {
			return
		}
		from = at + int64(n)
	}
}

// tell sends the state at first, at each change, and at the end when all
// output was sent; and how much of stdin was taken.
func (c *client) tell(ctx context.Context, flushed <-chan struct{}) {
	u := c.u
	first := true
	for {
		st, changed := u.status()
		if st.State.Ended() {
			select {
			case <-flushed:
			case <-ctx.Done():
				return
			}
		}
		c.mu.Lock()
		done := c.done
		c.mu.Unlock()
		acked, taken := u.stdin.position()
		m := &xosv1.FromJob{Job: unit.Job(u.spec, st), StdinAcked: acked, SignalsDone: done, Ended: st.State.Ended()}
		if first {
			for _, n := range st.Notices {
				if c.send(&xosv1.FromJob{Notice: n}) != nil {
					return
				}
			}
			first = false
		}
		if err := c.send(m); err != nil || m.Ended {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-taken:
		case <-c.news:
		}
	}
}

func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return cred.Uid, nil
}
