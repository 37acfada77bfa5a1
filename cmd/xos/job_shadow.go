package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/threads"
)

// stand is the state of this process while it stands for a job.
type stand struct {
	client  xosv1connect.JobsClient
	request *xosv1.SubmitRequest
	job     *xosv1.Job
	raw     *term.State // of the terminal, before it was made raw

	mu             sync.Mutex
	send           func(*xosv1.ToJob) error // nil while not connected
	stdout, stderr int64                    // written
	in             []byte                   // standard input not yet acknowledged
	inFrom         int64
	inEOF          bool
	signals        []int32 // not yet in effect
	settled        int64   // of those sent on this connection, in effect
	changed        *sync.Cond
}

// The most standard input that awaits the job; the machines on the way take a
// little more.
const inputWindow = 128 << 10

// spareThreads is more than a shadow needs for its calls that wait: for the terminal or a
// pipe, the connection, or a processor. Where a session has come to its ceiling of
// processes, its jobs would end with shadows that cannot have one.
const spareThreads = 10

// runShadow stands for a job until it has ended, then ends as it did.
func runShadow(r shadowRequest) int {
	threads.Reserve(spareThreads)
	client, err := jobs()
	if err != nil {
		return exitStatus(err)
	}
	s := &stand{client: client, request: r.request}
	s.changed = sync.NewCond(&s.mu)
	s.request.ShadowPid = int32(os.Getpid())
	s.request.Rows, s.request.Columns = s.size()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	caught := catchSignals()
	go s.forward(caught)
	if err := s.submit(ctx); err != nil {
		return exitStatus(err)
	}
	if s.request.Tty {
		if s.raw, err = term.MakeRaw(0); err != nil {
			return exitStatus(xos.Errorf(xos.Invalid, "preparing the terminal: %w", err))
		}
		s.resize()
	}
	if s.request.Stdin {
		go s.readInput()
	}
	err = s.attend(ctx)
	s.restore()
	if err != nil {
		return exitStatus(err)
	}
	if r.JSON {
		if data, err := protojson.Marshal(s.job); err == nil {
			fmt.Fprintln(os.Stderr, string(data))
		}
	}
	if s.job.State == xosv1.JobState_JOB_STATE_FAILED {
		fmt.Fprintf(os.Stderr, "xsub: job %s: %s\n", s.job.Id, s.job.Reason)
		return jobStatus(s.job)
	}
	if s.job.ExitSignal != 0 {
		dieOf(unix.Signal(s.job.ExitSignal))
	}
	return jobStatus(s.job)
}

func (s *stand) restore() {
	if s.raw != nil {
		term.Restore(0, s.raw)
	}
}

// submit submits, again if the answer was lost: this process stands for one
// job only, whose manager knows that.
func (s *stand) submit(ctx context.Context) error {
	for {
		resp, err := s.client.Submit(ctx, connect.NewRequest(s.request))
		if err == nil {
			s.mu.Lock()
			s.job = resp.Msg.Job
			s.mu.Unlock()
			return nil
		}
		if !interrupted(err) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// attend stays attached to the job until it has ended.
func (s *stand) attend(ctx context.Context) error {
	var silent time.Time
	said := false
	for {
		heard, err := s.attach(ctx)
		if err == nil {
			return nil
		}
		if !interrupted(err) && !xos.Is(err, xos.Unavailable) {
			return err
		}
		if heard || silent.IsZero() {
			silent, said = time.Now(), false
		}
		if time.Since(silent) > 2*time.Second && !said {
			said = true
			s.say("this machine's xos-node does not answer; the job goes on, still trying")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *stand) say(text string) {
	end := "\n"
	if s.raw != nil {
		end = "\r\n"
	}
	fmt.Fprintf(os.Stderr, "xsub: %s%s", text, end)
}

// attach is one connection; nil when the job has ended and all is written.
func (s *stand) attach(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := s.client.Attach(ctx)
	defer stream.CloseResponse()
	defer stream.CloseRequest()
	if err := s.begin(stream.Send); err != nil {
		if errors.Is(err, io.EOF) {
			_, err = stream.Receive()
		}
		return false, err
	}
	defer func() {
		s.mu.Lock()
		s.send = nil
		s.mu.Unlock()
	}()
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			err = xos.Errorf(xos.Unavailable, "the connection to job %s ended early", s.job.Id)
		}
		if err != nil {
			return heard, err
		}
		heard = true
		if err := s.take(m); err != nil {
			return heard, err
		}
		if m.Ended {
			return heard, nil
		}
	}
}

// begin tells where this process is, and what the job has not got yet.
func (s *stand) begin(send func(*xosv1.ToJob) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = 0
	hello := &xosv1.ToJob{Job: s.job.Id, StdoutFrom: s.stdout, StderrFrom: s.stderr, StdinOffset: s.inFrom, ShadowPid: s.request.ShadowPid}
	hello.Rows, hello.Columns = s.size()
	if err := send(hello); err != nil {
		return err
	}
	for at := 0; at < len(s.in); at += 32 << 10 {
		end := min(at+32<<10, len(s.in))
		if err := send(&xosv1.ToJob{StdinOffset: s.inFrom + int64(at), Stdin: s.in[at:end]}); err != nil {
			return err
		}
	}
	if s.inEOF {
		if err := send(&xosv1.ToJob{StdinOffset: s.inFrom + int64(len(s.in)), StdinEof: true}); err != nil {
			return err
		}
	}
	for _, sig := range s.signals {
		if err := send(&xosv1.ToJob{Signal: sig}); err != nil {
			return err
		}
	}
	s.send = send
	return nil
}

// pass sends if there is a connection; the caller holds mu, and keeps what it
// sends until it is acknowledged.
func (s *stand) pass(m *xosv1.ToJob) {
	m.StdoutFrom, m.StderrFrom = s.stdout, s.stderr
	if s.send != nil && s.send(m) != nil {
		s.send = nil // the receiving side sees it too
	}
}

// take does with a message what it says.
func (s *stand) take(m *xosv1.FromJob) error {
	if m.Notice != "" {
		s.say(m.Notice)
	}
	// Written without the lock: a pipe may be full, and signals must go on.
	if err := s.write(os.Stdout, m.Stdout, m.Offset, &s.stdout); err != nil {
		return err
	}
	if err := s.write(os.Stderr, m.Stderr, m.Offset, &s.stderr); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Job != nil {
		s.job = m.Job
		if gone := m.StdinAcked - s.inFrom; gone > 0 {
			s.in = s.in[min(gone, int64(len(s.in))):]
			s.inFrom += gone
		}
	}
	for ; m.Job != nil && s.settled < m.SignalsDone && len(s.signals) > 0; s.settled++ {
		s.signals = s.signals[1:]
	}
	if m.SignalFailed && len(s.signals) > 0 {
		s.signals = s.signals[1:]
	}
	if len(m.Stdout) > 0 || len(m.Stderr) > 0 || m.Ended {
		s.pass(&xosv1.ToJob{})
	}
	s.changed.Broadcast()
	return nil
}

// write writes what is new of data, which begins at an offset in its stream.
func (s *stand) write(f *os.File, data []byte, at int64, written *int64) error {
	if skip := *written - at; skip > 0 {
		data = data[min(skip, int64(len(data))):]
	} else if skip < 0 && len(data) > 0 {
		s.say(fmt.Sprintf("%d bytes of output were lost", -skip))
		s.mu.Lock()
		*written = at
		s.mu.Unlock()
	}
	for len(data) > 0 {
		n, err := f.Write(data)
		s.mu.Lock()
		*written += int64(n)
		s.mu.Unlock()
		data = data[n:]
		if errors.Is(err, unix.EAGAIN) { // somebody made the terminal non-blocking
			unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}, -1)
			continue
		}
		if err != nil {
			return xos.Errorf(xos.Internal, "writing the job's output: %w", err)
		}
	}
	return nil
}
