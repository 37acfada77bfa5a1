package job

import (
	"context"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// maxStdin bounds what is kept of a job's standard input until its machine
// has it.
const maxStdin = 256 << 10

// proxy keeps what a new connection to the job's machine needs: what the tool
// has of the output, and what the job has not yet got of input and signals.
type proxy struct {
	toTool func(*xosv1.FromJob) error
	watch  bool

	tool sync.Mutex // one message at a time to the tool

	mu             sync.Mutex
	toUnit         func(*xosv1.ToJob) error // nil while not connected
	stdout, stderr int64                    // passed on
	ackOut, ackErr int64                    // what the tool need not get again
	in             []byte                   // sent by the tool, not yet acknowledged
	inFrom         int64                    // offset of in
	inEOF          bool
	signals        []int32 // not yet in effect
	signalled      int64   // of these, in effect on this connection
	rows, columns  uint32
	done           int64 // signals in effect, of all connections
	acked          chan struct{}
}

func newProxy(hello *xosv1.ToJob, send func(*xosv1.FromJob) error) *proxy {
	p := &proxy{toTool: send, watch: hello.Watch, stdout: hello.StdoutFrom, stderr: hello.StderrFrom,
		ackOut: hello.StdoutFrom, ackErr: hello.StderrFrom, inFrom: hello.StdinOffset, acked: make(chan struct{}, 1)}
	p.hear(hello)
	return p
}

// tell sends to the tool.
func (p *proxy) tell(m *xosv1.FromJob) error {
	p.tool.Lock()
	defer p.tool.Unlock()
	return p.toTool(m)
}

// hear takes what the tool says, and passes it on if there is a connection.
func (p *proxy) hear(m *xosv1.ToJob) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ackOut, p.ackErr = max(p.ackOut, m.StdoutFrom), max(p.ackErr, m.StderrFrom)
	if len(m.Stdin) > 0 {
		end := p.inFrom + int64(len(p.in))
		if m.StdinOffset > end || m.StdinOffset < 0 {
			return xos.Errorf(xos.Invalid, "standard input continues at byte %d, but only %d came", m.StdinOffset, end)
		}
		if fresh := m.StdinOffset + int64(len(m.Stdin)) - end; fresh > 0 {
			if len(p.in)+int(fresh) > maxStdin {
				return xos.Errorf(xos.TooLarge, "more than %d bytes of standard input await the job", maxStdin)
			}
			p.in = append(p.in, m.Stdin[len(m.Stdin)-int(fresh):]...)
		}
	}
	p.inEOF = p.inEOF || m.StdinEof
	if m.Signal != 0 {
		if len(p.signals) > 100 {
			return xos.Errorf(xos.TooLarge, "more than 100 signals await the job")
		}
		p.signals = append(p.signals, m.Signal)
	}
	if m.Rows > 0 {
		p.rows, p.columns = m.Rows, m.Columns
	}
	select {
	case p.acked <- struct{}{}:
	default:
	}
	if p.toUnit == nil {
		return nil
	}
	pass := &xosv1.ToJob{StdoutFrom: p.ackOut, StderrFrom: p.ackErr, StdinOffset: m.StdinOffset, Stdin: m.Stdin, StdinEof: m.StdinEof,
		Signal: m.Signal, Rows: m.Rows, Columns: m.Columns}
	if p.toUnit(pass) != nil {
		p.toUnit = nil // the receiving side sees it too
	}
	return nil
}

// begin says to the job's machine where things stand.
func (p *proxy) begin(job string, send func(*xosv1.ToJob) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalled = 0
	// What was passed on but not acknowledged comes again, and is dropped.
	if err := send(&xosv1.ToJob{Job: job, Watch: p.watch, StdoutFrom: p.ackOut, StderrFrom: p.ackErr, Rows: p.rows, Columns: p.columns}); err != nil {
		return err
	}
	for at := 0; at < len(p.in); at += unit.MaxData {
		end := min(at+unit.MaxData, len(p.in))
		if err := send(&xosv1.ToJob{StdoutFrom: p.ackOut, StderrFrom: p.ackErr, StdinOffset: p.inFrom + int64(at), Stdin: p.in[at:end]}); err != nil {
			return err
		}
	}
	if p.inEOF {
		if err := send(&xosv1.ToJob{StdoutFrom: p.ackOut, StderrFrom: p.ackErr, StdinOffset: p.inFrom + int64(len(p.in)), StdinEof: true}); err != nil {
			return err
		}
	}
	for _, sig := range p.signals {
		if err := send(&xosv1.ToJob{StdoutFrom: p.ackOut, StderrFrom: p.ackErr, Signal: sig}); err != nil {
			return err
		}
	}
	p.toUnit = send
	return nil
}

// end forgets the connection.
func (p *proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toUnit = nil
}

// pass gives the tool what the job's machine says, without what it has.
func (p *proxy) pass(m *xosv1.FromJob) error {
	p.mu.Lock()
	if n := len(m.Stdout); n > 0 {
		m.Stdout, m.Offset = fresh(m.Stdout, m.Offset, &p.stdout)
	}
	if n := len(m.Stderr); n > 0 {
		m.Stderr, m.Offset = fresh(m.Stderr, m.Offset, &p.stderr)
	}
	empty := len(m.Stdout) == 0 && len(m.Stderr) == 0
	if m.Job != nil {
		if gone := m.StdinAcked - p.inFrom; gone > 0 {
			p.in = p.in[min(gone, int64(len(p.in))):]
			p.inFrom += gone
		}
		m.StdinAcked = max(m.StdinAcked, p.inFrom)
		for p.signalled < m.SignalsDone && len(p.signals) > 0 {
			p.signals = p.signals[1:]
			p.signalled++
			p.done++
		}
		m.SignalsDone = p.done
	}
	if m.SignalFailed && len(p.signals) > 0 {
		p.signals = p.signals[1:]
		p.done++
	}
	p.mu.Unlock()
	if empty && m.Job == nil && m.Notice == "" && !m.Ended {
		return nil
	}
	return p.tell(m)
}

// fresh cuts off what was passed on before.
func fresh(data []byte, at int64, passed *int64) ([]byte, int64) {
	end := at + int64(len(data))
	if end <= *passed {
		return nil, *passed
	}
	if at < *passed {
		data, at = data[*passed-at:], *passed
	}
	*passed = end
	return data, at
}

// farewell waits, a little, for the tool to say that it has everything, and
// tells the job's machine, which then need not keep it.
func (p *proxy) farewell(ctx context.Context) {
	end := time.NewTimer(2 * time.Second)
	defer end.Stop()
	for {
		p.mu.Lock()
		all := p.watch || p.ackOut >= p.stdout && p.ackErr >= p.stderr
		p.mu.Unlock()
		if all {
			return
		}
		select {
		case <-p.acked:
		case <-ctx.Done():
			return
		case <-end.C:
			return
		}
	}
}
