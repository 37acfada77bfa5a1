package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, ok func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// as runs a command that a person gives on the client.
func as(ctx context.Context, t *testing.T, g *testbed.Grid, person, command string) (string, int) {
	t.Helper()
	out, status, err := story.Run(ctx, g.Node("client"), person, command)
	if err != nil {
		t.Fatal(err)
	}
	return out, status
}

// want fails unless the command ended with status and printed all of texts.
func want(ctx context.Context, t *testing.T, g *testbed.Grid, person, command string, status int, texts ...string) {
	t.Helper()
	out, got := as(ctx, t, g, person, command)
	if got != status {
		t.Errorf("%s: status %d, want %d\n%s", command, got, status, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%s: the output lacks %q\n%s", command, text, out)
		}
	}
}

// newMember makes a user with a password and logs her in on the client, as the
// local user of that name.
func newMember(ctx context.Context, t *testing.T, g *testbed.Grid, user, vo string) {
	t.Helper()
	core := g.Node("core")
	for _, c := range []string{
		"printf 'long-enough\\n' | xos user add " + user + " --password",
		"xos vo member add " + vo + " " + user,
	} {
		if out, status, err := story.Run(ctx, core, "root", c); err != nil || status != 0 {
			t.Fatalf("%s: %d %v %s", c, status, err, out)
		}
	}
	if err := g.Node("client").Run(ctx, "useradd", "-m", "-s", "/bin/bash", user); err != nil {
		t.Fatal(err)
	}
	want(ctx, t, g, user, "echo long-enough | xos login "+user+"@"+vo, 0, "logged in")
}

// do gives a command at an interactive shell.
func do(ctx context.Context, t *testing.T, sh *testbed.Shell, command string) testbed.Result {
	t.Helper()
	r, err := sh.Do(ctx, command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return r
}

// TestRootKills kills every service in turn under a login shell with a running
// job: the shell lives, the job ends as it should, and what was synced is there.
func TestRootKills(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "dora", "lab")
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "dora")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh dora@lab@node1"); err != nil {
		t.Fatal(err)
	}
	shell := do(ctx, t, sh, "echo $$").Output
	do(ctx, t, sh, "head -c 3000000 /dev/urandom > big; sha256sum big > big.sum; sync big big.sum")
	do(ctx, t, sh, `xsub --name steady --node node2 -- sh -c 'for i in $(seq 150); do echo line $i; sleep 0.1; done; exit 5' > out.txt 2> err.txt &`)
	do(ctx, t, sh, "J=$!")
	eventually(t, 20*time.Second, "the job writes", func() error {
		if r := do(ctx, t, sh, "test -s out.txt"); r.Status != 0 {
			return fmt.Errorf("nothing yet; %s", do(ctx, t, sh, "cat err.txt").Output)
		}
		return nil
	})
	alive := func(after string) {
		t.Helper()
		if now := do(ctx, t, sh, "echo $$").Output; now != shell {
			t.Fatalf("after %s the shell is %q, was %q", after, now, shell)
		}
		eventually(t, 30*time.Second, "the file is right after "+after, func() error {
			if r := do(ctx, t, sh, "cd && sha256sum -c big.sum"); r.Status != 0 {
				return fmt.Errorf("%s", r.Output)
			}
			return nil
		})
	}
	kill := func(node, unit string) {
		t.Helper()
		if _, err := g.Node(node).KillMain(ctx, unit); err != nil {
			t.Fatal(err)
		}
		if unit == "xos-node.service" {
			want(ctx, t, g, "dora", "ssh dora@lab@"+node+" 'xsub --node "+node+" -- echo it waited'", 0, "it waited")
			if n, err := g.Node(node).Output(ctx, "systemctl", "show", "-P", "NFileDescriptorStore", unit); err != nil || strings.TrimSpace(n) != "2" {
				t.Errorf("%q sockets are held (%v)", n, err)
			}
		}
		eventually(t, 20*time.Second, unit+" runs again", func() error { return g.Node(node).Run(ctx, "systemctl", "is-active", unit) })
		alive("kill -9 of " + unit + " on " + node)
	}
	kill("node1", "xos-node.service")
	kill("node2", "xos-node.service")
	kill("core", "xos-core.service")
	kill("core", "xos-osd.service")
	if r := do(ctx, t, sh, "wait $J; echo status $?"); !strings.Contains(r.Output, "status 5") {
		t.Errorf("the job ended with %q; %s", r.Output, do(ctx, t, sh, "cat err.txt").Output)
	}
	if r := do(ctx, t, sh, "seq -f 'line %g' 150 | cmp - out.txt && echo complete"); !strings.Contains(r.Output, "complete") {
		t.Errorf("the job's output: %s", r.Output)
	}
	kill("node1", `xos-mount@home\x2dlab\x2ddora.service`)
	do(ctx, t, sh, "echo after > after && sync after")
	want(ctx, t, g, "dora", "ssh dora@lab@node2 'sha256sum -c big.sum && cat after'", 0, "big: OK", "after")
}

// TestRootCoreAway shows what goes on without the core: logins with valid
// certificates do, for a while.
func TestRootCoreAway(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "erna", "lab")
	want(ctx, t, g, "erna", "ssh erna@lab@node1 'echo was here > before; sync'", 0)
	core := g.Node("core")
	if err := core.Run(ctx, "systemctl", "stop", "xos-core.service", "xos-core.socket"); err != nil {
		t.Fatal(err)
	}
	defer core.Run(ctx, "systemctl", "start", "xos-core.socket", "xos-core.service")
	eventually(t, 30*time.Second, "node1 notices", func() error {
		out, err := g.Node("node1").Output(ctx, "xos", "status")
		if err == nil && !strings.Contains(out, "unreachable") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	// The first login that meets the outage waits it out at her mounted home;
	// where there is none, and later, nothing waits.
	want(ctx, t, g, "erna", "ssh erna@lab@node1 'id -un'", 0, "erna@lab")
	for _, node := range []string{"node1", "node2"} {
		start := time.Now()
		want(ctx, t, g, "erna", "ssh erna@lab@"+node+" 'id -un'", 0, "erna@lab")
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("a login to %s took %v", node, d)
		}
	}
	want(ctx, t, g, "erna", "echo long-enough | xos login erna@lab", 69, "no answer from core")
	if err := core.Run(ctx, "systemctl", "start", "xos-core.socket", "xos-core.service"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "her home is back", func() error {
		if out, status := as(ctx, t, g, "erna", "ssh erna@lab@node1 'cat before'"); status != 0 || !strings.Contains(out, "was here") {
			return fmt.Errorf("status %d %s", status, out)
		}
		return nil
	})
}

// TestRootLostNode loses the machine of a running job.
func TestRootLostNode(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "fritz", "lab")
	done := make(chan string, 1)
	go func() {
		out, status, err := story.Run(ctx, g.Node("client"), "fritz", "ssh fritz@lab@node1 'xsub --node node2 -- sh -c \"echo started; exec sleep 1000\"' 2>&1 | tee lost; exit ${PIPESTATUS[0]}")
		done <- fmt.Sprintf("%s status %d %v", out, status, err)
	}()
	node2 := g.Node("node2")
	eventually(t, 30*time.Second, "the job's output comes", func() error { return g.Node("client").Run(ctx, "grep", "-q", "started", "/home/fritz/lost") })
	if err := node2.Run(ctx, "ip", "link", "set", "eth0", "down"); err != nil {
		t.Fatal(err)
	}
	defer node2.Run(ctx, "ip", "link", "set", "eth0", "up")
	select {
	case got := <-done:
		if !strings.Contains(got, "started") || !strings.Contains(got, "status 69") || !strings.Contains(got, "node2") {
			t.Errorf("xsub said %s", got)
		}
	case <-time.After(90 * time.Second):
		t.Error("xsub still waits for a lost machine")
	}
	if err := node2.Run(ctx, "ip", "link", "set", "eth0", "up"); err != nil {
		t.Fatal(err)
	}
	// What was given up does not run on unseen once the machine is back.
	eventually(t, 60*time.Second, "the lost job is ended", func() error {
		if node2.Run(ctx, "pgrep", "-f", "sleep 1000") == nil {
			return fmt.Errorf("it runs")
		}
		return nil
	})
}

// TestRootDiskFull fills the storage: programs get ENOSPC, nothing is torn,
// and there is room again after deleting.
func TestRootDiskFull(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "gerda", "lab")
	core := g.Node("core")
	restart := func(edit string) {
		t.Helper()
		if out, status, err := story.Run(ctx, core, "root", edit+"; systemctl restart xos-osd && xos-osd --check-config"); err != nil || status != 0 {
			t.Fatalf("%s: %d %v %s", edit, status, err, out)
		}
	}
	used, _, err := story.Run(ctx, core, "root", "du -s -B1 /var/lib/xos/osd/data/data 2>/dev/null | cut -f1")
	if err != nil {
		t.Fatal(err)
	}
	restart("echo capacity = $((" + strings.TrimSpace(used) + " + 30000000)) >> /etc/xos/osd.toml")
	defer restart("sed -i /^capacity/d /etc/xos/osd.toml")
	eventually(t, 30*time.Second, "a file of 1 MB is written", func() error {
		out, status := as(ctx, t, g, "gerda", "ssh gerda@lab@node1 'head -c 1000000 /dev/zero | tr \"\\0\" x > kept && sync kept && sha256sum kept > kept.sum && sync kept.sum'")
		if status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	want(ctx, t, g, "gerda", "ssh gerda@lab@node1 'dd if=/dev/zero of=huge bs=1M count=100 conv=fsync'", 1, "No space left on device")
	want(ctx, t, g, "gerda", "ssh gerda@lab@node2 'sha256sum -c kept.sum'", 0, "kept: OK")
	want(ctx, t, g, "gerda", "ssh gerda@lab@node1 'rm huge'", 0)
	eventually(t, 60*time.Second, "there is room again", func() error {
		out, status := as(ctx, t, g, "gerda", "ssh gerda@lab@node1 'dd if=/dev/zero of=again bs=1M count=5 conv=fsync'")
		if status != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
