package unit

import (
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

var states = map[aem.State]xosv1.JobState{
	aem.New:       xosv1.JobState_JOB_STATE_NEW,
	aem.Running:   xosv1.JobState_JOB_STATE_RUNNING,
	aem.Suspended: xosv1.JobState_JOB_STATE_SUSPENDED,
	aem.Done:      xosv1.JobState_JOB_STATE_DONE,
	aem.Canceled:  xosv1.JobState_JOB_STATE_CANCELED,
	aem.Failed:    xosv1.JobState_JOB_STATE_FAILED,
}

// WireState gives the wire's word for a state.
func WireState(s aem.State) xosv1.JobState { return states[s] }

// StateOf is the reverse; an unknown one is New.
func StateOf(w xosv1.JobState) aem.State {
	for s, v := range states {
		if v == w {
			return s
		}
	}
	return aem.New
}

// End gives the state in which a job has ended. Whose end was wanted and who died of
// SIGKILL was canceled, also where those who saw it did not know why: a daemon may die
// between killing a job and saying so.
func End(state xosv1.JobState, signal int32, wanted bool) xosv1.JobState {
	if wanted && state == xosv1.JobState_JOB_STATE_DONE && signal == int32(unix.SIGKILL) {
		return xosv1.JobState_JOB_STATE_CANCELED
	}
	return state
}

// Job tells on the wire how a unit stands. The command is in its record
// already; only what the supervisor knows is given.
func Job(spec Spec, st State) *xosv1.Job {
	j := &xosv1.Job{
		Id: string(spec.Job), Account: spec.Account.String(), SubmitNode: string(spec.SubmitNode),
		Spec:     &xosv1.JobSpec{Name: spec.Name, Argv: spec.Argv},
		State:    WireState(st.State),
		ExitCode: int32(st.Exit.Code), ExitSignal: int32(st.Exit.Signal), Reason: st.Reason,
		Submitted: stamp(spec.Submitted), Started: stamp(st.Started), Ended: stamp(st.Ended),
		CpuMicros: st.Usage.CPU.Microseconds(), MemoryBytes: st.Usage.Memory,
	}
	return j
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
