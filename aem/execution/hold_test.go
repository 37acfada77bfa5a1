package execution_test

import (
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
)

// TestRootFrozenJobs: jobs of who lost her access stand still until she is back,
// also for a new xos-node; one that she had stopped herself stays stopped.
func TestRootFrozenJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, own := w.start("sleep", "100"), w.start("sleep", "100")
	signal := func(id string, sig syscall.Signal) error {
		_, err := w.node.Execution(w.node1).SignalUnit(t.Context(), connect.NewRequest(&xosv1.SignalUnitRequest{Job: id, Signal: int32(sig)}))
		return err
	}
	becomes := func(id string, want xosv1.JobState) {
		t.Helper()
		var got xosv1.JobState
		for end := time.Now().Add(5 * time.Second); got != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is %v, never %v", id, got, want)
			}
			if resp, err := w.node.Execution(w.node1).UnitStatus(t.Context(), connect.NewRequest(&xosv1.UnitStatusRequest{Job: id})); err == nil {
				got = resp.Msg.State
			}
		}
	}
	const running, suspended = xosv1.JobState_JOB_STATE_RUNNING, xosv1.JobState_JOB_STATE_SUSPENDED
	becomes(id, running)
	if err := signal(own, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	becomes(own, suspended)
	w.node.Sessions.Sentence(alice, session.Freeze)
	becomes(id, suspended)
	w.node.Sessions.Sentence(alice, session.Freeze) // it may be told twice
	for _, job := range []string{id, own} {
		for _, sig := range []syscall.Signal{syscall.SIGCONT, -syscall.SIGCONT} {
			if err := signal(job, sig); !xos.Is(err, xos.Permission) {
				t.Errorf("a frozen job was resumed by signal %d: %v", sig, err)
			}
		}
	}
	w.node.Kill()
	w.node.Start()
	w.node.Sessions.Sentence(alice, session.Freeze)
	becomes(id, suspended)
	w.node.Sessions.Sentence(alice, session.Thaw)
	becomes(id, running)
	becomes(own, suspended)
	if err := signal(own, syscall.SIGCONT); err != nil {
		t.Errorf("her own stop cannot be undone: %v", err)
	}
	becomes(own, running)
	w.node.Sessions.Sentence(alice, session.Freeze)
	becomes(id, suspended)
	w.node.Sessions.Revoke(alice)
	becomes(id, xosv1.JobState_JOB_STATE_CANCELED)
}
