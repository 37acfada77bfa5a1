package job_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

func (mc *machine) startManager() {
	t := mc.w.t
	t.Helper()
	m, err := job.New(job.Config{Node: mc.Name, Site: "test", Dir: filepath.Join(mc.dir, "state"), Lost: 2 * time.Second, Patience: 3 * time.Second},
		job.Deps{Verifier: mc.w.CA.Verifier(), Sessions: mc.Sessions, Resources: mc.resources, Machine: credtest.Show(mc.Machine),
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

func TestRootSubmit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("elsewhere", func(t *testing.T) {
		id := w.node1.submit(on("node2", spec("sh", "-c", "echo hello; echo $XOS_JOB; exit 5")))
		c := w.node1.attach(id, &xosv1.ToJob{})
		last := c.end()
		if want := "hello\n" + id + "\n"; c.text() != want || last.ExitCode != 5 || last.ExecutionNode != "node2" {
			t.Errorf("%q, %v", c.text(), last)
		}
		if job := w.node2.wait(id); job.ExitCode != 5 || job.State != xosv1.JobState_JOB_STATE_DONE || job.SubmitNode != "node1" {
			t.Errorf("node2 says %v", job)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		id := w.node1.submit(spec("no-such-program"))
		if last := w.node1.attach(id, &xosv1.ToJob{}).end(); last.ExitCode != 127 {
			t.Errorf("%v", last)
		}
	})
	t.Run("refused by policy, next", func(t *testing.T) {
		w.node2.Refuse = "physics has used up its share"
		defer func() { w.node2.Refuse = "" }()
		for range 3 {
			if job := w.node1.wait(w.node1.submit(spec("true"))); job.ExecutionNode != "node1" {
				t.Errorf("ran on %s", job.ExecutionNode)
			}
		}
		_, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(on("node2", spec("true"))))
		if !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "used up its share") {
			t.Errorf("%v", err)
		}
	})
	t.Run("nothing matches", func(t *testing.T) {
		many := 1e6
		r := spec("true")
		r.Spec.Conditions = []*xosv1.Condition{{Attribute: "cpus", Min: &many}}
		_, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(r))
		if !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "none of the 2 machines that answered matches: 2 have less than 1e+06 cpus") {
			t.Errorf("%v", err)
		}
		_, err = w.node1.jobs.Submit(t.Context(), connect.NewRequest(on("node9", spec("true"))))
		if !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "2 are not node9") {
			t.Errorf("%v", err)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		for _, r := range []*xosv1.SubmitRequest{spec(), spec("a\x00"), {Spec: &xosv1.JobSpec{Argv: []string{"a"}, Conditions: []*xosv1.Condition{{Attribute: "x y"}}}}, {}} {
			if _, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(r)); !xos.Is(err, xos.Invalid) {
				t.Errorf("%v: %v", r, err)
			}
		}
		r := spec("true")
		r.ShadowPid = 1 << 22
		if _, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(r)); !xos.Is(err, xos.NotFound) {
			t.Errorf("no shadow: %v", err)
		}
	})
	t.Run("others", func(t *testing.T) {
		id := w.node1.submit(spec("sleep", "100"))
		for _, mc := range []*machine{w.node1, w.node2} {
			mc.Sessions.Login(uint32(os.Getuid()), bob)
			if _, err := mc.jobs.Get(t.Context(), connect.NewRequest(&xosv1.GetRequest{Job: id})); !xos.Is(err, xos.NotFound) {
				t.Errorf("bob reads: %v", err)
			}
			if err := mc.signal(id, 9); !xos.Is(err, xos.NotFound) {
				t.Errorf("bob kills: %v", err)
			}
			if l, err := mc.jobs.List(t.Context(), connect.NewRequest(&xosv1.ListRequest{All: true})); err != nil || len(l.Msg.Jobs) != 0 {
				t.Errorf("bob lists: %v, %v", l, err)
			}
			mc.Sessions.Login(uint32(os.Getuid()), alice)
		}
		if err := w.node2.signal(id, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if job := w.node2.wait(id); job.ExitSignal != 15 || job.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("%v", job)
		}
		if err := w.node2.signal(id, syscall.SIGTERM); !xos.Is(err, xos.NotFound) {
			t.Errorf("signalled though it ended: %v", err)
		}
	})
}

func TestRootStdinAndSignals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := on("node2", spec("bash", "-c", "trap 'echo usr1' USR1; while read x; do echo got $x; done; echo end"))
	r.Stdin = true
	id := w.node1.submit(r)
	s := w.node1.jobs.Attach(t.Context())
	defer s.CloseResponse()
	for _, m := range []*xosv1.ToJob{{Job: id}, {Stdin: []byte("one\n")}, {StdinOffset: 4, Stdin: []byte("two\n")}} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	var done, acked int64
	read := func(what string, cond func(m *xosv1.FromJob) bool) {
		t.Helper()
		for {
			m, err := s.Receive()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			out.Write(m.Stdout)
			if m.Job != nil {
				done, acked = m.SignalsDone, m.StdinAcked
			}
			if cond(m) {
				return
			}
		}
	}
	read("two lines", func(*xosv1.FromJob) bool { return out.String() == "got one\ngot two\n" && acked == 8 })
	s.Send(&xosv1.ToJob{Signal: int32(syscall.SIGUSR1)})
	read("the signal", func(*xosv1.FromJob) bool { return done == 1 && strings.HasSuffix(out.String(), "usr1\n") })
	s.Send(&xosv1.ToJob{Signal: int32(syscall.SIGSTOP)})
	read("suspension", func(m *xosv1.FromJob) bool { return m.Job.GetState() == xosv1.JobState_JOB_STATE_SUSPENDED })
	until(t, "suspension in the list", func() bool { return w.node2.get(id).State == xosv1.JobState_JOB_STATE_SUSPENDED })
	s.Send(&xosv1.ToJob{Signal: int32(syscall.SIGCONT)})
	read("resumption", func(m *xosv1.FromJob) bool { return m.Job.GetState() == xosv1.JobState_JOB_STATE_RUNNING })
	s.Send(&xosv1.ToJob{StdinOffset: 8, StdinEof: true})
	read("the end", func(m *xosv1.FromJob) bool { return m.Ended })
	if !strings.HasSuffix(out.String(), "end\n") {
		t.Errorf("%q", out.String())
	}
}

func TestRootManagerRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const lines = 60_000
	id := w.node1.submit(on("node2", spec("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt 30 ]; do seq $((i*%d+1)) $(((i+1)*%d)); sleep 0.05; i=$((i+1)); done; exit 9", lines/30, lines/30))))
	c := w.node1.attach(id, &xosv1.ToJob{})
	until(t, "some output", func() bool { return len(c.text()) > 1000 })
	w.node1.stopManager()
	w.node1.startManager()
	until(t, "more output", func() bool { return len(c.text()) > 200_000 })
	w.node2.Kill() // the other side, now
	w.node2.Start()
	last := c.end()
	var want bytes.Buffer
	for i := 1; i <= lines; i++ {
		fmt.Fprintln(&want, i)
	}
	if c.text() != want.String() || last.ExitCode != 9 || c.breaks == 0 {
		t.Errorf("%d bytes of %d, %d breaks, %v", len(c.text()), want.Len(), c.breaks, last)
	}
	if job := w.node2.wait(id); job.ExitCode != 9 {
		t.Errorf("recorded %v", job)
	}
}

func TestRootMachineIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.node1.submit(on("node2", spec("sh", "-c", "echo begun; sleep 100")))
	c := w.node1.attach(id, &xosv1.ToJob{})
	until(t, "output", func() bool { return c.text() == "begun\n" })
	w.node2.Kill()
	last := c.end()
	if last.State != xosv1.JobState_JOB_STATE_FAILED || !strings.Contains(last.Reason, "node2, where it ran, did not answer") {
		t.Errorf("%v", last)
	}
	if len(c.notices) == 0 || !strings.Contains(c.notices[0], "node2 does not answer") {
		t.Errorf("notices %q", c.notices)
	}
	// When it comes back it ends what nobody wants any more.
	w.node2.Start()
	until(t, "the end of the unit", func() bool { return w.node2.Exec.Count() == 0 })
	if job := w.node2.wait(id); job.State != xosv1.JobState_JOB_STATE_FAILED {
		t.Errorf("recorded %v", job)
	}
}

func TestRootCoreIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.node1.submit(on("node2", spec("sh", "-c", "echo begun; sleep 0.5; exit 3")))
	w.StopCore()
	c := w.node1.attach(id, &xosv1.ToJob{})
	if last := c.end(); last.ExitCode != 3 || c.text() != "begun\n" {
		t.Errorf("%v, %q", last, c.text())
	}
	if l, err := w.node1.jobs.List(t.Context(), connect.NewRequest(&xosv1.ListRequest{All: true})); err != nil || len(l.Msg.Jobs) != 1 {
		t.Errorf("list while the core is away: %v, %v", l, err)
	}
	submitted, second := make(chan error, 1), ""
	go func() {
		resp, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(spec("true")))
		if err == nil {
			second = resp.Msg.Job.Id
		}
		submitted <- err
	}()
	select {
	case err := <-submitted:
		t.Errorf("submitted without the core: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	w.StartCore()
	if err := <-submitted; err != nil {
		t.Fatalf("when the core is back: %v", err)
	}
	w.node1.wait(second)
	until(t, "the record of the end", func() bool { return w.node2.get(id).ExitCode == 3 })
}

func TestRootShadow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begin := func(t *testing.T) (string, *exec.Cmd) {
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		r := on("node2", spec("sh", "-c", "while :; do sleep 0.02; done"))
		r.ShadowPid = int32(cmd.Process.Pid)
		id := w.node1.submit(r)
		if again := w.node1.submit(r); again != id {
			t.Errorf("one shadow, two jobs: %s, %s", id, again)
		}
		return id, cmd
	}
	state := func(id string, want xosv1.JobState) {
		t.Helper()
		until(t, want.String(), func() bool { return w.node1.get(id).State == want })
	}
	t.Run("stop, continue, kill", func(t *testing.T) {
		id, cmd := begin(t)
		cmd.Process.Signal(syscall.SIGSTOP)
		state(id, xosv1.JobState_JOB_STATE_SUSPENDED)
		cmd.Process.Signal(syscall.SIGCONT)
		state(id, xosv1.JobState_JOB_STATE_RUNNING)
		cmd.Process.Signal(syscall.SIGSTOP)
		state(id, xosv1.JobState_JOB_STATE_SUSPENDED)
		cmd.Process.Kill()
		if job := w.node2.wait(id); job.ExitSignal != 9 || job.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("%v", job)
		}
	})
	t.Run("killed while the manager is away", func(t *testing.T) {
		id, cmd := begin(t)
		w.node1.stopManager()
		cmd.Process.Kill()
		cmd.Wait()
		w.node1.startManager()
		if job := w.node1.wait(id); job.ExitSignal != 9 || !job.KillWanted {
			t.Errorf("%v", job)
		}
	})
	t.Run("killed while the machine is away", func(t *testing.T) {
		id, cmd := begin(t)
		w.node2.Kill()
		cmd.Process.Kill()
		until(t, "the wish", func() bool { return w.node1.get(id).KillWanted })
		w.node2.Start()
		if job := w.node1.wait(id); job.ExitSignal != 9 || job.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("%v", job)
		}
	})
}

// TestRootSubmitIsQuick bounds, generously, the time from a submission to the
// running job, and shows it.
func TestRootSubmitIsQuick(t *testing.T) {
	w := newWorld(t)
	w.node1.wait(w.node1.submit(on("node2", spec("true"))))
	best := time.Hour
	for range 10 {
		begin := time.Now()
		id := w.node1.submit(on("node2", spec("true")))
		best = min(best, time.Since(begin))
		w.node1.wait(id)
	}
	t.Logf("submit to start: %v at best", best)
	if best > 2*time.Second {
		t.Errorf("a submission takes %v at best", best)
	}
}
