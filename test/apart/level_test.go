package apart

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// atA is what level A answers where it differs from level C: who gets through
// to a session, and to a job. It is the guard that does it.
var atA = map[string]struct{ session, job, why string }{
	"abstract: datagram": {"ABbGO", "ABbG", localToo},
	"abstract: packet":   {"ABbGO", "ABbG", localToo},
	"abstract: sendto":   {"ABbGO", "ABbG", localToo},
	"abstract: stream":   {"ABbGO", "ABbG", localToo},
	"getsid":             {"ABGO", "ABG", localToo},
	"sched_getaffinity":  {"ABGO", "ABG", localToo},
	"/run/user/UID":      {"ABGO", "ABG", localToo},
}

const localToo = "a local user has no VO: only what has one is judged"

// expected is the checklist at a level.
func expected(level string) []line {
	list := append([]line(nil), checklist...)
	for i, l := range list {
		if l.name == "perf_event_open" && needsRootForPerf() {
			list[i] = line{l.name, "", "", byNobody, "this kernel lets root only"}
		}
		if a, ok := atA[l.name]; ok && level == "A" {
			list[i] = line{l.name, a.session, a.job, byGuard, a.why}
		}
	}
	return list
}

// needsRootForPerf reports whether the kernel, as Debian's does, keeps
// perf_event_open from users altogether.
func needsRootForPerf() bool {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	level, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && err2 == nil && level > 2
}

// levelOf1 is the level that node1 says it has, which must be a known one.
func levelOf1(ctx context.Context, t *testing.T) string {
	t.Helper()
	var status struct{ Level string }
	out := on1(ctx, t, "root", "xos guard status --json")
	if err := json.Unmarshal([]byte(out), &status); err != nil || (status.Level != "C" && status.Level != "A") {
		t.Fatalf("the level is %q (%v): %s", status.Level, err, out)
	}
	return status.Level
}
