package job_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/aemtest"
	"github.com/xtreemos/xos/aem/job"
	"github.com/xtreemos/xos/aem/resource"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/bus/bustest"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/srds"
	"github.com/xtreemos/xos/srds/overlay"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func TestMain(m *testing.M) { os.Exit(aemtest.Main(m)) }

var (
	alice = xos.Account{User: "alice", VO: "physics"}
	bob   = xos.Account{User: "bob", VO: "physics"}
)

// world is a grid with managers on its machines.
type world struct {
	*aemtest.Grid
	t            *testing.T
	bus          *bustest.Bus
	node1, node2 *machine
}

// machine runs jobs and manages those submitted on it, for alice, whom the
// tests' own uid stands for.
type machine struct {
	*aemtest.Node
	w    *world
	m    *job.Manager
	jobs xosv1connect.JobsClient

	dir       string
	resources *overlay.Overlay
	busy      atomic.Int32 // so many of its questions come to nothing
	late      atomic.Int64 // nanoseconds until a question is answered
	looking   atomic.Int32 // questions that are open
	find      time.Duration
	stop      func()
}

func newWorld(t *testing.T) *world {
	w := &world{Grid: aemtest.New(t), t: t, bus: bustest.New(t)}
	w.node1, w.node2 = w.machine("node1"), w.machine("node2")
	return w
}

func (w *world) machine(name string) *machine {
	w.t.Helper()
	mc := &machine{Node: w.Node(xos.NodeID(name)), w: w, dir: w.t.TempDir()}
	mc.Sessions.Login(uint32(os.Getuid()), alice)
	res, err := overlay.New(overlay.Config{}, w.bus.Connect(name+"/node"), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	mc.resources = res
	offers := resource.New(resource.Config{Node: mc.Name, Address: mc.Address, VOs: []xos.VOName{"physics"}},
		resource.Live{Jobs: mc.Running, Isolation: func() string { return "none" }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { res.Answer(ctx, offers.Describe); close(done) }()
	w.t.Cleanup(func() { cancel(); <-done; res.Close() })
	mc.startManager()
	w.AtEnd(func() { mc.stopManager() })
	return mc
}

// Find implements srds.Directory, for machines that are too busy at times:
// another than node2 may have answered.
func (mc *machine) Find(ctx context.Context, q srds.Query, most int, wait time.Duration) ([]srds.Attributes, map[string]int, error) {
	mc.looking.Add(1)
	defer mc.looking.Add(-1)
	late := time.Duration(mc.late.Load())
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-time.After(min(late, wait)):
	}
	if late > wait {
		return nil, map[string]int{}, nil
	}
	if mc.busy.Add(-1) < 0 {
		return mc.resources.Find(ctx, q, most, wait)
	}
	if len(q.Ranges) > 0 {
		return nil, map[string]int{"node": 1}, nil
	}
	return nil, map[string]int{}, nil
}

// Answer implements srds.Directory.
func (mc *machine) Answer(ctx context.Context, describe func() srds.Attributes) error {
	return mc.resources.Answer(ctx, describe)
}

func (mc *machine) startManager() {
	t := mc.w.t
	t.Helper()
	m, err := job.New(job.Config{Node: mc.Name, Site: "test", Dir: filepath.Join(mc.dir, "state"), Lost: 2 * time.Second, Patience: 3 * time.Second, Find: mc.find},
		job.Deps{Verifier: mc.w.CA.Verifier(), Sessions: mc.Sessions, Resources: mc, Machine: credtest.Show(mc.Machine),
			Core: mc.w.CoreAddress, Now: time.Now,
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewJobsHandler(m, rpc.ServerOptions(slog.New(slog.DiscardHandler))...))
	path := filepath.Join(mc.dir, "sock")
	go func() {
		if err := rpc.ServeUnix(ctx, path, 0o600, mux); err != nil {
			t.Error(err)
		}
		close(done)
	}()
	until(t, "the socket", func() bool { _, err := os.Stat(path); return err == nil })
	mc.m = m
	if mc.jobs == nil { // it connects anew by itself
		mc.jobs = xosv1connect.NewJobsClient(rpc.UnixClient(path), rpc.UnixBase, rpc.ClientOptions()...)
	}
	mc.stop = sync.OnceFunc(func() { m.Close(); cancel(); <-done })
}

func (mc *machine) stopManager() { mc.stop() }

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func spec(argv ...string) *xosv1.SubmitRequest {
	return &xosv1.SubmitRequest{Spec: &xosv1.JobSpec{Argv: argv, Umask: 0o22}}
}

func on(node string, r *xosv1.SubmitRequest) *xosv1.SubmitRequest { r.Spec.Node = node; return r }

// submit submits on a machine; the grid may still be gathering.
func (mc *machine) submit(r *xosv1.SubmitRequest) string {
	t := mc.w.t
	t.Helper()
	var id string
	until(t, "a place for the job", func() bool {
		resp, err := mc.jobs.Submit(t.Context(), connect.NewRequest(r))
		if err != nil {
			if !xos.Is(err, xos.Unavailable) {
				t.Fatal(err)
			}
			return false
		}
		id = resp.Msg.Job.Id
		return true
	})
	return id
}

func (mc *machine) get(id string) *xosv1.Job {
	mc.w.t.Helper()
	resp, err := mc.jobs.Get(mc.w.t.Context(), connect.NewRequest(&xosv1.GetRequest{Job: id}))
	if err != nil {
		mc.w.t.Fatal(err)
	}
	return resp.Msg
}

func (mc *machine) wait(id string) *xosv1.Job {
	mc.w.t.Helper()
	ctx, cancel := context.WithTimeout(mc.w.t.Context(), 15*time.Second)
	defer cancel()
	resp, err := mc.jobs.Wait(ctx, connect.NewRequest(&xosv1.GetRequest{Job: id}))
	if err != nil {
		mc.w.t.Fatal(err)
	}
	return resp.Msg
}

func (mc *machine) signal(id string, sig syscall.Signal) error {
	_, err := mc.jobs.Signal(mc.w.t.Context(), connect.NewRequest(&xosv1.SignalRequest{Job: id, Signal: int32(sig)}))
	return err
}

// tool is an attached client: it acknowledges what it gets, and begins anew
// where it was when its connection breaks.
type tool struct {
	mc     *machine
	id     string
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	out     bytes.Buffer
	last    *xosv1.Job
	notices []string
	breaks  int
	err     error
	stream  *connect.BidiStreamForClient[xosv1.ToJob, xosv1.FromJob]
}

func (mc *machine) attach(id string, hello *xosv1.ToJob) *tool {
	ctx, cancel := context.WithCancel(mc.w.t.Context())
	c := &tool{mc: mc, id: id, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			c.mu.Lock()
			hello.Job, hello.StdoutFrom = id, int64(c.out.Len())
			c.mu.Unlock()
			if err := c.once(ctx, hello); err == nil || !xos.Is(err, xos.Unavailable) && !xos.Is(err, xos.Conflict) {
				c.err = err
				return
			}
			c.breaks++
			time.Sleep(10 * time.Millisecond)
		}
	}()
	mc.w.t.Cleanup(func() { cancel(); <-c.done })
	return c
}

func (c *tool) once(ctx context.Context, hello *xosv1.ToJob) error {
	s := c.mc.jobs.Attach(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	if err := s.Send(hello); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for {
		m, err := s.Receive()
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.out.Write(m.Stdout)
		if m.Job != nil {
			c.last = m.Job
		}
		if m.Notice != "" {
			c.notices = append(c.notices, m.Notice)
		}
		at := int64(c.out.Len())
		c.mu.Unlock()
		if len(m.Stdout) > 0 {
			s.Send(&xosv1.ToJob{StdoutFrom: at})
		}
		if m.Ended {
			return nil
		}
	}
}

func (c *tool) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func (c *tool) end() *xosv1.Job {
	c.mc.w.t.Helper()
	select {
	case <-c.done:
	case <-time.After(15 * time.Second):
		c.mc.w.t.Fatalf("job %s did not end: %q", c.id, c.text())
	}
	if c.err != nil {
		c.mc.w.t.Fatal(c.err)
	}
	return c.last
}
