package apart

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// Those who try, a letter each, in the order of the table's columns.
const (
	again    = 'A' // alice, in a second session
	member   = 'B' // bob, of the same VO
	memberIn = 'b' // his job
	stranger = 'C' // carol, of another VO
	strangIn = 'c' // her job
	local    = 'G' // guest, a user of the machine
	bare     = 'O' // carol's uid, with no measure of the guard's on either side
)

const everyone = "ABbCcGO"

// strangers are those who must be in no line that does not say why.
const strangers = "CcG"

// tries are all attempts on one victim: who got through with each, and what the
// others were told.
type tries struct{ got, why map[string]string }

func (t tries) note(who rune, all map[string]outcome) {
	for name, o := range all {
		if o.Worked {
			t.got[name] += string(who)
		} else {
			t.got[name] += ""
			t.why[name] += fmt.Sprintf("\n\t%c: %s", who, o.Detail)
		}
	}
}

// tried has everybody try everything on each victim.
func tried(ctx context.Context, t *testing.T, victims ...target) []tries {
	all := make([]tries, len(victims))
	for i := range all {
		all[i] = tries{map[string]string{}, map[string]string{}}
	}
	note := func(who rune, outcomes []map[string]outcome) {
		for i, o := range outcomes {
			all[i].note(who, o)
		}
	}
	note(again, login(ctx, t, "alice@physics", victims...))
	note(member, login(ctx, t, "bob@physics", victims...))
	note(memberIn, inJob(ctx, t, "bob@physics", victims...))
	note(stranger, login(ctx, t, "carol@chemistry", victims...))
	note(strangIn, inJob(ctx, t, "carol@chemistry", victims...))
	note(local, loggedIn(ctx, t, "guest", victims...))
	return all
}

// TestRootChecklist tries every line of the list from everybody, against a
// session and against a job; then against the same with the guard's measures
// off, where what they denied must work.
func TestRootChecklist(t *testing.T) {
	ctx := needGrid(t)
	install(ctx, t)
	level := levelOf1(ctx, t)
	nonce := fmt.Sprint(time.Now().UnixNano() % 1e8)
	v := victim(ctx, t, "mj"+nonce, true)
	pid := on1(ctx, t, "root", "for p in $(pgrep -f 'victim mj"+nonce+"'); do [ $(readlink /proc/$p/exe) = "+prober+" ] && echo $p; done; true")
	v["PID"], v["TID"], v["PTS"] = json.Number(pid), json.Number(pid), ""
	all := tried(ctx, t, victim(ctx, t, "ms"+nonce, false), v)
	session, job := all[0], all[1]

	on1(ctx, t, "root", "systemctl stop xos-node && rm -f /sys/fs/bpf/xos/link_*")
	defer on1(ctx, t, "root", "systemctl start xos-node")
	for name := range bared(ctx, t, level, "mo"+nonce) {
		session.got[name] += string(bare)
	}
	if os.Getenv("XOS_PRINT") != "" {
		for _, name := range sorted(session.got) {
			fmt.Printf("LINE %s|%s|%s\n", name, session.got[name], job.got[name])
		}
		return
	}
	check(t, level, session, job)
}

// bared gives what carol can do without the guard. The kernel lets go of
// programs that nothing names any more in its own time, seconds, so what should work by
// then and did not is tried again, with pauses: to try is more work than to let go.
func bared(ctx context.Context, t *testing.T, level, marker string) map[string]bool {
	worked := map[string]bool{}
	var remain []string // nil for all
	for deadline, pass := time.Now().Add(time.Minute), 0; ; pass++ {
		for name, o := range outside(ctx, t, "carol@chemistry", remain, unguarded(ctx, t, marker+fmt.Sprint("x", pass))) {
			worked[name] = worked[name] || o.Worked
		}
		remain = nil
		for _, l := range expected(level) {
			if strings.ContainsRune(l.session, bare) && !worked[l.name] {
				remain = append(remain, l.name)
			}
		}
		if remain == nil || time.Now().After(deadline) {
			maps.DeleteFunc(worked, func(_ string, yes bool) bool { return !yes })
			return worked
		}
		time.Sleep(2 * time.Second)
	}
}

// check compares with the checklist and prints it, with counts.
func check(t *testing.T, level string, session, job tries) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ATTEMPT\tSESSION\tJOB\tBY\tREMARK")
	denied, open, barred, off := 0, 0, 0, 0
	for _, l := range expected(level) {
		s, known := session.got[l.name]
		j := job.got[l.name]
		if !known {
			t.Errorf("%s: the prober does not try it", l.name)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.name, columns(s), columns(j), l.by, l.why)
		if s != l.session {
			t.Errorf("%s, against a session: %q got through, want %q; refused were:%s", l.name, s, l.session, session.why[l.name])
		}
		if j != l.job {
			t.Errorf("%s, against a job: %q got through, want %q; refused were:%s", l.name, j, l.job, job.why[l.name])
		}
		if strings.ContainsAny(l.session+l.job, strangers) && l.why == "" {
			t.Errorf("%s is open to strangers, and the list does not say why", l.name)
		}
		switch {
		case strings.ContainsAny(l.session, "Cc"):
			open++
		case strings.ContainsAny(l.session, "ABb"):
			denied++
		default:
			barred++
			if l.why == "" {
				t.Errorf("%s works for nobody, and the list does not say why", l.name)
			}
		}
		// What the guard denies must work without it; what the kernel's own
		// rules about uids deny has alice as proof that it can work at all.
		switch l.by {
		case byGuard:
			off++
			if !strings.Contains(s, string(bare)) {
				t.Errorf("%s is denied without the guard too", l.name)
			}
		case byUID:
			if strings.Contains(s, string(bare)) {
				t.Errorf("%s is denied by the guard, not by uids", l.name)
			}
		}
	}
	for _, name := range sorted(session.got) {
		if !slices.ContainsFunc(checklist, func(l line) bool { return l.name == name }) {
			t.Errorf("%s is tried and in no line", name)
		}
	}
	w.Flush()
	fmt.Printf("%s\n%d attempts by 6 people on a session and a job: %d denied to the other VO and open within, %d open at level %s, %d open to nobody; %d denials vanish without the guard\n",
		b.String(), len(checklist), denied, open, level, barred, off)
	fmt.Println("A alice again, B bob of her VO, b his job, C carol of another VO, c her job, G a local user, O carol without the guard")
}

// columns shows who got through, each at her place.
func columns(who string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(who, r) {
			return r
		}
		return '.'
	}, everyone)
}

func sorted(m map[string]string) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// TestRootGuardCommand: root sees the level and tests it; users see the level.
func TestRootGuardCommand(t *testing.T) {
	ctx := needGrid(t)
	login := func(command string) string {
		out, _, err := story.Run(ctx, node("client"), "carol", ssh("carol@chemistry", "", command))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	level := levelOf1(ctx, t)
	if out := login("xos guard status"); !strings.Contains(out, "level "+level) || strings.Contains(out, "refused:") {
		t.Errorf("carol is shown\n%s", out)
	}
	if out := login("xos guard test; echo status $?"); !strings.Contains(out, "status 77") {
		t.Errorf("carol may test: %s", out)
	}
	if out := on1(ctx, t, "root", "xos guard test"); strings.Contains(out, "FAILS") || !strings.Contains(out, "session of chemistry") {
		t.Errorf("root's test:\n%s", out)
	}
	// What a process is to the guard: one's own, and only those.
	if out := login("xos guard explain"); !strings.Contains(out, "VO chemistry's") || !strings.Contains(out, "carol@chemistry") {
		t.Errorf("carol's own shell is explained as\n%s", out)
	}
	if out := login("xos guard explain 1; echo status $?"); strings.Contains(out, "system") || strings.Contains(out, "status 0") {
		t.Errorf("carol is told of process 1:\n%s", out)
	}
	if out := on1(ctx, t, "root", "xos guard explain 1"); !strings.Contains(out, "the system's") || (level == "A") != strings.Contains(out, "task_kill") {
		t.Errorf("process 1 is explained as\n%s", out)
	}
	var explained struct {
		Level   string
		Process struct{ VO, By string }
	}
	if out := login("xos guard explain --json"); json.Unmarshal([]byte(out), &explained) != nil || explained.Level != level || explained.Process.VO != "chemistry" || explained.Process.By == "" {
		t.Errorf("as JSON: %s", out)
	}
	var status struct {
		Level    string
		Measures []struct{ Name string }
		Counts   []struct{ What string }
	}
	out := on1(ctx, t, "root", "xos guard status --json")
	err := json.Unmarshal([]byte(out), &status)
	bySignals := slices.ContainsFunc(status.Counts, func(c struct{ What string }) bool { return strings.Contains(c.What, "signals") })
	if err != nil || status.Level != level || len(status.Measures) < 4 || len(status.Counts) < 4 || bySignals != (level == "A") {
		t.Errorf("as JSON (%v): %s", err, out)
	}
}
