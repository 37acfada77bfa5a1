package apart

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
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

// TestRootVODemandsALevel: jobs of a VO whose policy wants a level run only
// where the machine has it. That of the other level is demanded first: when it
// is refused, the policy has arrived.
func TestRootVODemandsALevel(t *testing.T) {
	ctx := needGrid(t)
	level, other := levelOf1(ctx, t), "A"
	if level == "A" {
		other = "C"
	}
	set := func(policy string) {
		t.Helper()
		out, status, err := story.Run(ctx, node("core"), "root", "printf '%s' '"+policy+"' | xos vo set-policy chemistry -")
		if err != nil || status != 0 {
			t.Fatalf("status %d (%v): %s", status, err, out)
		}
	}
	job := func(account string) (string, int) {
		user, _, _ := strings.Cut(account, "@")
		out, status, err := story.Run(ctx, node("client"), user, ssh(account, "", "xsub --node node1 -- echo it ran"))
		if err != nil {
			t.Fatal(err)
		}
		return out, status
	}
	until := func(ran bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; {
			out, status := job("carol@chemistry")
			if ran && status == 0 && strings.Contains(out, "it ran") || !ran && status == 77 && strings.Contains(out, "VO chemistry forbids run") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("carol's job should run: %v, but: status %d\n%s", ran, status, out)
			}
		}
	}
	demand := func(level string) string {
		return `permit (principal, action, resource); forbid (principal, action == Action::"run", resource) unless { resource.isolation == "` + level + `" };`
	}
	defer until(true)
	defer set("")
	set(demand(other))
	until(false)
	if out, status := job("alice@physics"); status != 0 {
		t.Errorf("alice's VO demands nothing: status %d\n%s", status, out)
	}
	set(demand(level))
	until(true)
}
