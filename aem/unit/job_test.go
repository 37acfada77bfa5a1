package unit_test

import (
	"testing"

	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// TestEnd: only what was to be killed, and was, is canceled.
func TestEnd(t *testing.T) {
	const done, failed, canceled = xosv1.JobState_JOB_STATE_DONE, xosv1.JobState_JOB_STATE_FAILED, xosv1.JobState_JOB_STATE_CANCELED
	for _, c := range []struct {
		state  xosv1.JobState
		signal int32
		wanted bool
		want   xosv1.JobState
	}{
		{done, 9, true, canceled},
		{done, 9, false, done}, // by itself, or for want of memory
		{done, 0, true, done},  // just before
		{done, 15, true, done},
		{failed, 9, true, failed},
		{canceled, 9, true, canceled},
	} {
		if got := unit.End(c.state, c.signal, c.wanted); got != c.want {
			t.Errorf("%v by signal %d, wanted %v: %v", c.state, c.signal, c.wanted, got)
		}
	}
}
