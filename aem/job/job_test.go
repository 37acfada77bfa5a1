package job_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

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
	t.Run("too busy to answer at once", func(t *testing.T) {
		for _, want := range []*xosv1.SubmitRequest{on("node2", spec("true")), spec("true")} {
			w.node1.busy.Store(3)
			resp, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(want))
			if err != nil {
				t.Fatal(err)
			}
			if job := w.node1.wait(resp.Msg.Job.Id); job.State != xosv1.JobState_JOB_STATE_DONE {
				t.Errorf("%v", job)
			}
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

// TestRootLateAnswer: a machine that takes long to answer is waited for as long as a
// job has patience, and no longer than anybody wants the job.
func TestRootLateAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node1.stopManager()
	w.node1.find = 2900 * time.Millisecond
	w.node1.startManager()
	t.Run("comes", func(t *testing.T) {
		w.node1.late.Store(int64(5400 * time.Millisecond)) // the second try's, which is the last
		resp, err := w.node1.jobs.Submit(t.Context(), connect.NewRequest(spec("true")))
		if err != nil {
			t.Fatal(err)
		}
		if job := w.node1.wait(resp.Msg.Job.Id); job.State != xosv1.JobState_JOB_STATE_DONE {
			t.Errorf("%v", job)
		}
	})
	t.Run("is not waited for", func(t *testing.T) {
		w.node1.late.Store(int64(time.Minute))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := w.node1.jobs.Submit(ctx, connect.NewRequest(spec("true"))); err == nil {
			t.Fatal("submitted")
		}
		began := time.Now()
		until(t, "the end of the search", func() bool { return w.node1.looking.Load() == 0 })
		if took := time.Since(began); took > time.Second {
			t.Errorf("looked for a place for %v", took)
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
