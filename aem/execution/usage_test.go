package execution_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/aemtest"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// usage waits for what the core has of a job's use to be as wanted.
func (w *world) usage(id, what string, cond func(*xosv1.UsageRecord) bool) *xosv1.UsageRecord {
	w.t.Helper()
	var last *xosv1.UsageRecord
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp, err := w.Directory.ListUsage(w.peer(w.alice1), connect.NewRequest(&xosv1.ListUsageRequest{}))
		if err != nil {
			w.t.Fatal(err)
		}
		found := 0
		for _, r := range resp.Msg.Records {
			if r.Job == id {
				last = r
				found++
			}
		}
		if found > 1 {
			w.t.Fatalf("job %s is counted %d times: %v", id, found, resp.Msg.Records)
		}
		if found == 1 && cond(last) {
			return last
		}
	}
	w.t.Fatalf("waited for %s of job %s, but the record says %v", what, id, last)
	return nil
}

func killSupervisor(t *testing.T, w *world, id string) {
	t.Helper()
	var st unit.State
	if err := unit.Read(filepath.Join(w.node.Units(), id, unit.StateFile), &st); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func final(r *xosv1.UsageRecord) bool { return r.Final }

func TestRootUsageIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sh", "-c", "for i in 1 2 3 4 5; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done")
	job := w.record(id, "its end", ended)
	r := w.usage(id, "the final record", final)
	if r.Account != "alice@physics" || r.Node != "node2" || r.Executable != "sh" || r.Incomplete || r.SentBytes != aemtest.Sent || r.Executions != 3 {
		t.Errorf("%v", r)
	}
	if r.Credential == "" || !r.Until.AsTime().Equal(job.Ended.AsTime()) {
		t.Errorf("%v, but the job ended at %v", r, job.Ended.AsTime())
	}
	if r.CpuUserMicros <= 0 || r.CpuUserMicros+r.CpuSystemMicros+10 < job.CpuMicros || slices.Contains(r.Uncounted, "cpu") {
		t.Errorf("processor time %d + %d of %d: %v", r.CpuUserMicros, r.CpuSystemMicros, job.CpuMicros, r.Uncounted)
	}
	if !slices.Contains(r.Uncounted, "opens") {
		t.Errorf("nobody counts opens, but: %v", r.Uncounted)
	}
}

// TestRootUsageOutlivesTheNode restarts xos-node while a job runs and after its
// end, with the core away, and kills a supervisor.
func TestRootUsageOutlivesTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long, dying := w.start("sleep", "1000"), w.start("sleep", "1000")
	var at time.Time
	open := func(id string) bool {
		r := w.node.Ledger.Open(xos.JobID(id))
		return r != nil && r.SentBytes == aemtest.Sent && r.Until.AsTime().After(at)
	}
	wait := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited for %s", what)
			}
		}
	}
	wait("what the job used so far", func() bool { return open(long) && open(dying) })
	w.node.Kill()
	w.StopCore()
	at = time.Now()
	w.node.Start()
	wait("what it used since", func() bool { return open(long) })
	killSupervisor(t, w, dying)
	wait("the end of the one whose supervisor was killed", func() bool {
		r := w.node.Ledger.Open(xos.JobID(dying))
		return r != nil && r.Final
	})
	for range 3 { // the core is away, and so is the end's report
		w.node.Kill()
		w.node.Start()
	}
	w.StartCore()
	if r := w.usage(dying, "the final record", final); r.SentBytes != aemtest.Sent {
		t.Errorf("%v", r)
	}
	if _, err := w.Directory.RequestKill(w.peer(w.alice1), connect.NewRequest(&xosv1.RequestKillRequest{Job: long})); err != nil {
		t.Fatal(err)
	}
	if r := w.usage(long, "the final record", final); r.SentBytes != aemtest.Sent || r.Incomplete {
		t.Errorf("%v", r)
	}
	w.node.Kill()
	w.node.Start() // it finds units that are accounted for
	again := w.start("true")
	w.usage(again, "the final record", final)
	if r := w.usage(long, "the same record", final); r.SentBytes != aemtest.Sent {
		t.Errorf("after another restart: %v", r)
	}
}

// TestRootUsageOfAJobKilledWithoutItsSupervisor, which hangs: the kernel's
// figures must not go with the job.
func TestRootUsageOfAJobKilledWithoutItsSupervisor(t *testing.T) {
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
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := w.node.Execution(w.node1).SignalUnit(ctx, connect.NewRequest(&xosv1.SignalUnitRequest{Job: id, Signal: 9, Account: "alice@physics"})); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := w.usage(id, "the final record", final); r.SentBytes != aemtest.Sent || slices.Contains(r.Uncounted, "net") {
		t.Errorf("%v", r)
	}
}

// TestRootUsageOfAMachineThatStopped removes all that a machine has only until
// it is started anew.
func TestRootUsageOfAMachineThatStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.start("sleep", "1000")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if r := w.node.Ledger.Open(xos.JobID(id)); r != nil && r.SentBytes > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is written down")
		}
	}
	w.node.Kill()
	killSupervisor(t, w, id)
	if err := os.RemoveAll(filepath.Join(w.node.Units(), id)); err != nil {
		t.Fatal(err)
	}
	w.node.Start()
	if r := w.usage(id, "the final record", final); !r.Incomplete || r.SentBytes != aemtest.Sent {
		t.Errorf("%v", r)
	}
}
