package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/testbed"
)

// TestRootJobControl handles a remote job from a terminal as if it were local:
// ^Z, jobs, bg, fg, ^C, ^D, and a job with a terminal of its own.
func TestRootJobControl(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "ida", "lab")
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "ida")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh -t ida@lab@node1"); err != nil {
		t.Fatal(err)
	}
	send := func(text string) {
		t.Helper()
		if err := sh.Send(text); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(pattern string) {
		t.Helper()
		if _, _, err := sh.Expect(ctx, regexp.MustCompile(pattern)); err != nil {
			t.Fatal(err)
		}
	}
	prompt := func() testbed.Result {
		t.Helper()
		r, err := sh.Prompt(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	// The prompt's $? is of the last command, so each is looked at alone.
	send("xsub --name echo --node node2 -- sh -c 'echo ready; while read l; do echo got $l; done; exit 3'\n")
	expect("ready")
	send("one\n")
	expect("got one")
	send("\x1a")
	if r := prompt(); r.Status != 148 || !strings.Contains(r.Output, "Stopped") {
		t.Errorf("^Z: status %d %q", r.Status, r.Output)
	}
	if r := do(ctx, t, sh, "jobs"); !strings.Contains(r.Output, "Stopped") {
		t.Errorf("jobs: %q", r.Output)
	}
	eventually(t, 10*time.Second, "the remote job is stopped too", func() error {
		if r := do(ctx, t, sh, "xps | grep suspended"); r.Status != 0 {
			return context.DeadlineExceeded
		}
		return nil
	})
	send("fg\n")
	expect("xsub")
	send("two\n")
	expect("got two")
	send("\x04") // ^D: the job's input ends
	if r := prompt(); r.Status != 3 {
		t.Errorf("^D: status %d %q", r.Status, r.Output)
	}

	send("xsub --node node2 -- sh -c 'echo ready; exec sleep 1000'\n")
	expect("ready")
	send("\x03")
	if r := prompt(); r.Status != 130 {
		t.Errorf("^C: status %d %q", r.Status, r.Output)
	}
	eventually(t, 10*time.Second, "the remote job is gone", func() error {
		if r := do(ctx, t, sh, "xps | grep -E 'running|suspended'"); r.Status == 0 {
			return context.DeadlineExceeded
		}
		return nil
	})

	// Stopped, continued in the background, and waited for.
	send("xsub --node node2 -- sh -c 'echo ready; sleep 1; echo done; exit 4'\n")
	expect("ready")
	send("\x1a")
	prompt()
	send("bg\n")
	prompt()
	if r := do(ctx, t, sh, "wait %1; echo status $?"); !strings.Contains(r.Output, "status 4") {
		t.Errorf("bg, wait: %q", r.Output)
	}

	// A terminal of the job's own.
	send("xsub --tty --node node2 -- bash --norc\n")
	expect(`\$ $`)
	send("tty; stty size; hostname; echo $((6*7))\n")
	expect(`/dev/pts/\d+\s+50 200\s+node2\s+42`)
	send("sleep 1234\n")
	eventually(t, 10*time.Second, "it runs there", func() error { return g.Node("node2").Run(ctx, "pgrep", "-f", "^sleep 1234") })
	send("\x03")
	expect(`\$ $`)
	send("exit 6\n")
	if r := prompt(); r.Status != 6 {
		t.Errorf("--tty: status %d %q", r.Status, r.Output)
	}
}
