package execution

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// farewell is how long an attached client may take to acknowledge the last
// output of an ended job.
const farewell = 5 * time.Second

// AttachUnit implements ExecutionHandler: frames between the stream and the
// unit's supervisor or, once that is gone, the files it left.
func (e *Execution) AttachUnit(ctx context.Context, stream *connect.BidiStream[xosv1.ToJob, xosv1.FromJob]) error {
	hello, err := stream.Receive()
	if err != nil {
		return err
	}
	r, err := e.allowed(ctx, hello.Job)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	a := &attached{r: r, watch: hello.Watch, stdout: hello.StdoutFrom, stderr: hello.StderrFrom, left: make(chan struct{}), ready: make(chan struct{}), send: stream.Send}
	go func() {
		defer close(a.left)
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			a.forward(ctx, m)
		}
	}()
	for {
		heard, ended, err := a.live(ctx, hello)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if !ended && e.settled(r) {
			if err := a.rest(ctx, r.status()); err != nil {
				return err
			}
			ended = true
		}
		switch {
		case ended:
			a.leave(ctx, heard)
			return nil
		case heard:
			// What was under way is not known: let the client begin anew.
			return xos.Errorf(xos.Unavailable, "the connection to job %s broke", r.spec.Job)
		}
		select { // the supervisor is about to listen, or to end
		case <-ctx.Done():
			return nil
		case <-a.left:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// attached is one client of one unit.
type attached struct {
	r              *running
	watch          bool
	stdout, stderr int64 // where the client is
	left           chan struct{}
	ready          chan struct{} // closed when forward may go on
	send           func(*xosv1.FromJob) error

	mu   sync.Mutex
	conn net.Conn // to the supervisor, while there is one
	over bool     // acknowledgements go to the files
}

// forward passes on what the client says. What comes after the supervisor has
// gone is dropped: the client keeps it until it is acknowledged.
func (a *attached) forward(ctx context.Context, m *xosv1.ToJob) {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		if err := unit.WriteFrame(a.conn, m); err == nil {
			return
		}
	}
	if a.over && !a.watch {
		ack(a.r.dir, unit.StdoutFile, m.StdoutFrom)
		ack(a.r.dir, unit.StderrFile, m.StderrFrom)
	}
}

func ack(dir, name string, offset int64) {
	if s, err := unit.OpenSpool(filepath.Join(dir, name)); err == nil {
		s.Ack(offset)
		s.Close()
	}
}

// live passes on what the supervisor says until the unit has ended or the
// supervisor is gone; heard says whether there was one.
func (a *attached) live(ctx context.Context, hello *xosv1.ToJob) (heard, ended bool, err error) {
	conn, err := a.r.dial(ctx, hello)
	if err != nil {
		return false, false, nil
	}
	a.mu.Lock()
	a.conn = conn
	a.mu.Unlock()
	close(a.ready) // a supervisor is heard once
	defer func() {
		a.mu.Lock()
		a.conn = nil
		a.mu.Unlock()
		conn.Close()
	}()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	gone := make(chan struct{})
	defer close(gone)
	go func() { // half a stream is none
		select {
		case <-a.left:
			conn.Close()
		case <-gone:
		}
	}()
	for in := bufio.NewReader(conn); ; {
		var m xosv1.FromJob
		if err := unit.ReadFrame(in, &m); err != nil {
			select {
			case <-a.left:
				return true, true, nil
			default:
				return true, false, nil
			}
		}
		if m.Job != nil {
			m.Job.ExecutionNode = a.r.status().ExecutionNode
		}
		if n := int64(len(m.Stdout)); n > 0 {
			a.stdout = m.Offset + n
		}
		if n := int64(len(m.Stderr)); n > 0 {
			a.stderr = m.Offset + n
		}
		if err := a.send(&m); err != nil {
			return true, false, err
		}
		if m.Ended {
			return true, true, nil
		}
	}
}

// rest sends what an ended unit left in its files, and how it ended.
func (a *attached) rest(ctx context.Context, job *xosv1.Job) error {
	if !a.watch {
		for _, o := range []struct {
			name string
			from int64
			wrap func(at int64, data []byte) *xosv1.FromJob
		}{
			{unit.StdoutFile, a.stdout, func(at int64, d []byte) *xosv1.FromJob { return &xosv1.FromJob{Offset: at, Stdout: d} }},
			{unit.StderrFile, a.stderr, func(at int64, d []byte) *xosv1.FromJob { return &xosv1.FromJob{Offset: at, Stderr: d} }},
		} {
			if err := a.replay(ctx, o.name, o.from, o.wrap); err != nil {
				return err
			}
		}
	}
	return a.send(&xosv1.FromJob{Job: job, Ended: true})
}

func (a *attached) replay(ctx context.Context, name string, from int64, wrap func(int64, []byte) *xosv1.FromJob) error {
	s, err := unit.OpenSpool(filepath.Join(a.r.dir, name))
	if err != nil {
		return xos.Errorf(xos.Unavailable, "the output of job %s is lost: %w", a.r.spec.Job, err)
	}
	defer s.Close()
	buf := make([]byte, unit.MaxData)
	for {
		n, at, err := s.ReadFrom(ctx, from, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.send(wrap(at, buf[:n])); err != nil {
			return err
		}
		from = at + int64(n)
	}
}

// leave waits for the client's last acknowledgement.
func (a *attached) leave(ctx context.Context, heard bool) {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	if !heard {
		close(a.ready)
	}
	select {
	case <-a.left:
	case <-ctx.Done():
	case <-time.After(farewell):
	}
}
