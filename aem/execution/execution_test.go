package execution_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/aemtest"
	"github.com/xtreemos/xos/aem/order"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func TestMain(m *testing.M) { os.Exit(aemtest.Main(m)) }

var alice = xos.Account{User: "alice", VO: "physics"}

// world is a grid of one machine that runs jobs, and the submitting machine's
// and the user's credentials.
type world struct {
	*aemtest.Grid
	t            *testing.T
	node         *aemtest.Node
	node1        tls.Certificate
	alice1, bob1 tls.Certificate
	last         int
}

func newWorld(t *testing.T) *world {
	g := aemtest.New(t)
	return &world{Grid: g, t: t, node: g.Node("node2"), node1: g.CA.Machine("node1", vom.ServiceNode),
		alice1: g.CA.Delegated("alice@physics", "node1"), bob1: g.CA.Delegated("bob@physics", "node1")}
}

func (w *world) peer(c tls.Certificate) context.Context {
	return rpc.WithPeer(w.t.Context(), rpc.Peer{Chain: credtest.Chain(w.t, c)})
}

// request makes an ordered start.
func (w *world) request(argv ...string) (string, *xosv1.StartRequest) {
	w.t.Helper()
	w.last++
	id := fmt.Sprintf("test-%d-%d", os.Getpid(), w.last)
	spec, err := proto.Marshal(&xosv1.JobSpec{Argv: argv, Umask: 0o22})
	if err != nil {
		w.t.Fatal(err)
	}
	who, err := credential.FromX509(w.alice1.Leaf)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := order.Sign(w.alice1, who, order.Terms{Job: xos.JobID(id), Execution: "node2", Spec: spec}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return id, &xosv1.StartRequest{Order: s.Content, OrderSignature: s.Signature, OrderChain: s.Chain, Spec: spec}
}

// start records and starts a job, as its manager would.
func (w *world) start(argv ...string) string {
	w.t.Helper()
	id, req := w.request(argv...)
	job := &xosv1.Job{Id: id, Account: alice.String(), SubmitNode: "node1", ExecutionNode: "node2", Spec: &xosv1.JobSpec{Argv: argv},
		State: xosv1.JobState_JOB_STATE_NEW, Submitted: timestamppb.Now()}
	put, err := w.Directory.PutJob(w.peer(w.alice1), connect.NewRequest(&xosv1.PutJobRequest{Job: job}))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.node.Execution(w.node1).Start(w.t.Context(), connect.NewRequest(req)); err != nil {
		w.t.Fatal(err)
	}
	job.Epoch, job.State, job.Started = put.Msg.Epoch, xosv1.JobState_JOB_STATE_RUNNING, timestamppb.Now()
	// A short job's end may be on record before.
	if _, err := w.Directory.PutJob(w.peer(w.node1), connect.NewRequest(&xosv1.PutJobRequest{Job: job})); err != nil && !xos.Is(err, xos.Conflict) {
		w.t.Fatal(err)
	}
	return id
}

// record waits for a job's record to be as wanted.
func (w *world) record(id, what string, cond func(*xosv1.Job) bool) *xosv1.Job {
	w.t.Helper()
	var job *xosv1.Job
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp, err := w.Directory.GetJob(w.peer(w.alice1), connect.NewRequest(&xosv1.GetJobRequest{Job: id}))
		if err != nil {
			w.t.Fatal(err)
		}
		if job = resp.Msg; cond(job) {
			return job
		}
	}
	w.t.Fatalf("waited for %s, but the record says %v", what, job)
	return nil
}

func ended(j *xosv1.Job) bool { return j.Ended != nil }

// output attaches and reads until the end.
func (w *world) output(id string, cert tls.Certificate, hello *xosv1.ToJob) (stdout string, last *xosv1.Job, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	s := w.node.Execution(cert).AttachUnit(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	hello.Job = id
	if err := s.Send(hello); err != nil {
		return "", nil, err
	}
	var out bytes.Buffer
	for {
		m, err := s.Receive()
		if err != nil {
			return out.String(), last, err
		}
		out.Write(m.Stdout)
		if m.Job != nil {
			last = m.Job
		}
		if m.Ended {
			return out.String(), last, s.Send(&xosv1.ToJob{StdoutFrom: hello.StdoutFrom + int64(out.Len())})
		}
	}
}

func TestRootStartAndEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sh", "-c", "echo $USER $XOS_JOB; pwd; exit 3")
	out, job, err := w.output(id, w.node1, &xosv1.ToJob{})
	home := filepath.Join(filepath.Dir(w.node.Units()), "homes/physics/alice")
	if want := "alice@physics " + id + "\n" + home + "\n"; err != nil || out != want || job.ExitCode != 3 || job.ExecutionNode != "node2" {
		t.Errorf("output %q, want %q; %v, %v", out, want, job, err)
	}
	rec := w.record(id, "its end", ended)
	if rec.ExitCode != 3 || rec.State != xosv1.JobState_JOB_STATE_DONE || rec.CpuMicros == 0 {
		t.Errorf("recorded %v", rec)
	}
	if n := w.node.Sessions.Admitted(alice); n != 0 {
		t.Errorf("still %d admissions", n)
	}
	if n := w.node.Exec.Count(); n != 0 {
		t.Errorf("still %d units", n)
	}
	// The output can be read again until it is forgotten, from anywhere in it.
	if out, _, err := w.output(id, w.alice1, &xosv1.ToJob{}); err != nil || out != "" && !strings.HasSuffix(out, home+"\n") {
		t.Errorf("again %q, %v", out, err)
	}
}

// TestRootKilledWithoutSupervisor kills a job whose supervisor hangs.
func TestRootKilledWithoutSupervisor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sleep", "1000")
	var st unit.State
	if err := unit.Read(filepath.Join(w.node.Units(), id, unit.StateFile), &st); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := w.node.Execution(w.node1).SignalUnit(t.Context(), connect.NewRequest(&xosv1.SignalUnitRequest{Job: id, Signal: int32(syscall.SIGKILL)}))
	if err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if rec := w.record(id, "its end", ended); rec.State != xosv1.JobState_JOB_STATE_CANCELED || rec.ExitSignal != int32(syscall.SIGKILL) {
		t.Errorf("recorded %v", rec)
	}
}

func TestRootRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, good := w.request("true")
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		edit func(*xosv1.StartRequest)
		want xos.Kind
	}{
		{"another machine", w.CA.Machine("node3", vom.ServiceNode), nil, xos.Permission},
		{"storage", w.CA.Machine("node1", vom.ServiceStorage), nil, xos.Permission},
		{"the user", w.alice1, nil, xos.Invalid},
		{"another command", w.node1, func(r *xosv1.StartRequest) {
			r.Spec, _ = proto.Marshal(&xosv1.JobSpec{Argv: []string{"id"}})
		}, xos.Permission},
		{"no order", w.node1, func(r *xosv1.StartRequest) { r.Order, r.OrderSignature, r.OrderChain = nil, nil, nil }, xos.Invalid},
		{"another signer", w.node1, func(r *xosv1.StartRequest) { r.OrderChain = w.bob1.Certificate }, xos.Permission},
	} {
		req := proto.CloneOf(good)
		if tt.edit != nil {
			tt.edit(req)
		}
		if _, err := w.node.Execution(tt.cert).Start(ctx, connect.NewRequest(req)); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	w.node.Refuse = "physics has used up its share"
	if _, err := w.node.Execution(w.node1).Start(ctx, connect.NewRequest(good)); !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "used up its share") {
		t.Errorf("policy: %v", err)
	}
	w.node.Refuse = ""
	w.CA.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now().Add(time.Second)})
	if _, err := w.node.Execution(w.node1).Start(ctx, connect.NewRequest(good)); !xos.Is(err, xos.Permission) {
		t.Errorf("revoked: %v", err)
	}
	if n := w.node.Exec.Count(); n != 0 || w.node.Sessions.Admitted(alice) != 0 {
		t.Errorf("%d units run", n)
	}
	if e, _ := os.ReadDir(w.node.Units()); len(e) != 0 {
		t.Errorf("left behind: %v", e)
	}
}

func TestRootTheSameOrderTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, req := w.request("sleep", "100")
	c := w.node.Execution(w.node1)
	for range 2 {
		resp, err := c.Start(t.Context(), connect.NewRequest(req))
		if err != nil || resp.Msg.Job.Id != id {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if n := w.node.Exec.Count(); n != 1 {
		t.Errorf("%d units", n)
	}
	// Nobody recorded it, so nobody wants it.
	for end := time.Now().Add(5 * time.Second); w.node.Exec.Count() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("an unrecorded unit still runs")
		}
	}
}

func TestRootOthersFindNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sleep", "100")
	for name, c := range map[string]tls.Certificate{"bob": w.bob1, "node3": w.CA.Machine("node3", vom.ServiceNode), "alice, not delegated": w.CA.X509User("alice@physics")} {
		e := w.node.Execution(c)
		if _, err := e.UnitStatus(t.Context(), connect.NewRequest(&xosv1.UnitStatusRequest{Job: id})); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s reads: %v", name, err)
		}
		if _, err := e.SignalUnit(t.Context(), connect.NewRequest(&xosv1.SignalUnitRequest{Job: id, Signal: 9})); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s kills: %v", name, err)
		}
		if _, _, err := w.output(id, c, &xosv1.ToJob{}); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s attaches: %v", name, err)
		}
	}
	// Alice may, from any machine she is on.
	alice3 := w.CA.Delegated("alice@physics", "node3")
	if _, err := w.node.Execution(alice3).SignalUnit(t.Context(), connect.NewRequest(&xosv1.SignalUnitRequest{Job: id, Signal: 15})); err != nil {
		t.Error(err)
	}
	if rec := w.record(id, "its end", ended); rec.ExitSignal != 15 || rec.State != xosv1.JobState_JOB_STATE_CANCELED {
		t.Errorf("recorded %v", rec)
	}
}

func TestRootRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := w.start("sh", "-c", "echo before; read x; echo after") // no stdin: ends at once
	waits := w.start("sh", "-c", "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.02; done")
	w.record(runs, "its end", ended)
	w.node.Kill()
	gone := w.node.Exec
	w.node.Start()
	if gone == w.node.Exec || w.node.Exec.Count() != 1 || w.node.Sessions.Admitted(alice) != 2 {
		t.Errorf("%d units, %d admissions", w.node.Exec.Count(), w.node.Sessions.Admitted(alice))
	}
	if out, job, err := w.output(runs, w.node1, &xosv1.ToJob{}); err != nil || out != "before\nafter\n" || job.State != xosv1.JobState_JOB_STATE_DONE {
		t.Errorf("%q, %v, %v", out, job, err)
	}
	if _, err := w.node.Execution(w.node1).SignalUnit(t.Context(), connect.NewRequest(&xosv1.SignalUnitRequest{Job: waits, Signal: 15})); err != nil {
		t.Fatal(err)
	}
	if out, job, err := w.output(waits, w.node1, &xosv1.ToJob{}); err != nil || out != "up\nbye\n" || job.ExitCode != 4 {
		t.Errorf("%q, %v, %v", out, job, err)
	}
	w.record(waits, "its end", ended)
	if n := w.node.Sessions.Admitted(alice); n != 1 { // the one the killed service never released
		t.Errorf("%d admissions", n)
	}
}

func TestRootEndWhileCoreIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sh", "-c", "sleep 0.3; exit 7")
	w.StopCore()
	if _, job, err := w.output(id, w.node1, &xosv1.ToJob{}); err != nil || job.ExitCode != 7 {
		t.Errorf("%v, %v", job, err)
	}
	w.StartCore()
	if rec := w.record(id, "its end", ended); rec.ExitCode != 7 {
		t.Errorf("recorded %v", rec)
	}
}

func TestRootWishesAreObeyed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("kill while away", func(t *testing.T) {
		id := w.start("sleep", "100")
		w.node.Kill()
		if _, err := w.Directory.RequestKill(w.peer(w.alice1), connect.NewRequest(&xosv1.RequestKillRequest{Job: id})); err != nil {
			t.Fatal(err)
		}
		w.node.Start()
		if rec := w.record(id, "its end", ended); rec.ExitSignal != 9 || rec.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("recorded %v", rec)
		}
	})
	t.Run("access ends", func(t *testing.T) {
		id := w.start("sleep", "100")
		w.node.Sessions.Revoke(alice)
		if rec := w.record(id, "its end", ended); !strings.Contains(rec.Reason, "access of alice@physics ended") {
			t.Errorf("recorded %v", rec)
		}
	})
	t.Run("given to another", func(t *testing.T) {
		id := w.start("sleep", "100")
		rec := w.record(id, "its start", func(j *xosv1.Job) bool { return j.Started != nil })
		rec.ExecutionNode = "node3"
		if _, err := w.Directory.PutJob(w.peer(w.node1), connect.NewRequest(&xosv1.PutJobRequest{Job: rec})); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); w.node.Exec.Count() > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("still runs")
			}
		}
		if rec := w.record(id, "its record", func(*xosv1.Job) bool { return true }); ended(rec) {
			t.Errorf("the old machine wrote %v", rec)
		}
	})
	t.Run("supervisor killed", func(t *testing.T) {
		id := w.start("sleep", "100")
		var st unit.State
		if err := unit.Read(filepath.Join(w.node.Units(), id, unit.StateFile), &st); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(st.PID, syscall.SIGKILL)
		if rec := w.record(id, "its end", ended); rec.State != xosv1.JobState_JOB_STATE_FAILED || !strings.Contains(rec.Reason, "supervisor on node2 was killed") {
			t.Errorf("recorded %v", rec)
		}
		if _, job, err := w.output(id, w.node1, &xosv1.ToJob{}); err != nil || job.ExitSignal != 9 {
			t.Errorf("%v, %v", job, err)
		}
	})
	t.Run("machine restarted", func(t *testing.T) {
		id := w.start("sleep", "100")
		w.node.Kill()
		w.node.Lose(id)
		w.node.Start()
		if rec := w.record(id, "its end", ended); rec.State != xosv1.JobState_JOB_STATE_FAILED || rec.Reason != "node2 was restarted while the job ran" {
			t.Errorf("recorded %v", rec)
		}
	})
}
