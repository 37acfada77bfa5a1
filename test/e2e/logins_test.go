package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// TestRootFiveHundredLogins logs in 500 times, 20 at once, by the node's own
// sshd, and tells what of it is the grid's.
func TestRootFiveHundredLogins(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "jana", "lab")
	node := g.Node("node1")
	root := func(command string) string {
		t.Helper()
		out, status, err := story.Run(ctx, node, "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s: %d %v\n%s", command, status, err, out)
		}
		return strings.TrimSpace(out)
	}
	defer manyAtOnce(root, "")()

	// Sshd needs no program to know who has a session, and nothing else knows others.
	const program = "/usr/libexec/xos/xos-principals"
	alone := func(command string, status int, outputs ...string) {
		t.Helper()
		root("mv " + program + " " + program + ".away")
		defer root("mv " + program + ".away " + program)
		want(ctx, t, g, "jana", command, status, outputs...)
	}
	alone("ssh -o BatchMode=yes jana@lab@node1 true", 255, "Permission denied")
	want(ctx, t, g, "jana", "ssh -f jana@lab@node1 'echo here; sleep 30' </dev/null >held; until grep here held; do sleep 0.1; done", 0)
	alone("ssh -o BatchMode=yes jana@lab@node1 id -un", 0, "jana@lab")
	newMember(ctx, t, g, "jens", "lab")
	if out, status, err := story.Run(ctx, g.Node("client"), "root", "cd ~jens/.xos/jens@lab && ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes "+
		"-i id_ed25519 -o CertificateFile=id_ed25519-cert.pub jana@lab@node1 id -un 2>&1"); err != nil || status != 255 || !strings.Contains(out, "Permission denied") {
		t.Errorf("another member comes as her: %d %v %s", status, err, out)
	}
	if out := root("sshd -T -C user=jana@lab,host=x,addr=192.0.2.1 | grep -i authorizedprincipals"); !strings.Contains(out, "%h") || !strings.Contains(out, program) {
		t.Errorf("sshd is set up by %s", out)
	}
	root("pkill -x -u jana@lab sleep")

	key, status := as(ctx, t, g, "jana", "ssh-keygen -q -t ed25519 -N '' -f ~/local && cat ~/local.pub")
	if status != 0 {
		t.Fatal(key)
	}
	root("id local >/dev/null 2>&1 || useradd -m -s /bin/bash local; install -d -m 700 -o local -g local /home/local/.ssh; echo '" + strings.TrimSpace(key) +
		"' >/home/local/.ssh/authorized_keys; chown local: /home/local/.ssh/authorized_keys")

	// ticks are what the machine has spent on a service so far, in 1/100 s.
	ticks := func(unit string) int {
		t.Helper()
		n, err := strconv.Atoi(root(`awk '{sub(/.*\) /,""); print $12+$13}' /proc/$(systemctl show -P MainPID ` + unit + `)/stat`))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	logins := func(n int, target string) (took time.Duration, clients float64) {
		t.Helper()
		return twentyAtOnce(ctx, t, g, "jana", n, "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new "+target+" true </dev/null")
	}
	want(ctx, t, g, "jana", "ssh jana@lab@node1 true", 0)
	const few, many = 100, 500
	local, _ := logins(few, "-i local local@node1")
	before := ticks("xos-node")
	var grid time.Duration
	clients := 0.0
	for range many / few { // each within what one command may take
		took, cpu := logins(few, "jana@lab@node1")
		grid, clients = grid+took, clients+cpu*few/many
	}
	spent := float64(ticks("xos-node")-before) / 100 / many
	t.Logf("%d grid logins, 20 at once: %v, %.1f/s; local ones %.1f/s (a grid login takes %.2f times as long)", many, grid.Round(time.Millisecond), many/grid.Seconds(),
		few/local.Seconds(), (grid.Seconds()/many)/(local.Seconds()/few))
	t.Logf("CPU of a grid login: ssh %.1f ms, xos-node %.1f ms, of %.1f ms wall time", 1000*clients, 1000*spent, 1000*grid.Seconds()/many)
	if each := grid.Seconds() / many; each > 5*local.Seconds()/few {
		t.Errorf("a grid login takes %.0f ms, a local one %.0f ms", 1000*each, 1000*local.Seconds()/few)
	}
	noSession(ctx, t, node, "jana@lab")
}

// TestRootFiveHundredPasswordLogins logs in 500 times, 20 at once, with nothing
// but the grid password of one person, which sshd asks for by
// keyboard-interactive. None is refused, none waits for the limit on guesses, and
// each is on record as what it was.
func TestRootFiveHundredPasswordLogins(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "lena", "lab")
	node := g.Node("node1")
	root := func(command string) string {
		t.Helper()
		out, status, err := story.Run(ctx, node, "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s: %d %v\n%s", command, status, err, out)
		}
		return strings.TrimSpace(out)
	}
	defer manyAtOnce(root, "Match User *@*\\n\\tKbdInteractiveAuthentication yes\\n\\tAuthenticationMethods keyboard-interactive\\n")()
	want(ctx, t, g, "lena", "printf '#!/bin/sh\\necho long-enough\\n' >answer; chmod 700 answer; rm -r .xos", 0)
	const by = "SSH_ASKPASS=$HOME/answer SSH_ASKPASS_REQUIRE=force ssh -o PreferredAuthentications=keyboard-interactive -o NumberOfPasswordPrompts=1 " +
		"-o StrictHostKeyChecking=accept-new lena@lab@node1"
	want(ctx, t, g, "lena", by+" 'id -un; findmnt -no FSTYPE -T ~' </dev/null", 0, "lena@lab", "fuse.xosfs")
	const few, many = 100, 500
	var all time.Duration
	for range many / few {
		took, _ := twentyAtOnce(ctx, t, g, "lena", few, by+" true </dev/null")
		all += took
	}
	t.Logf("%d password logins, 20 at once: %v, %.1f/s", many, all.Round(time.Millisecond), many/all.Seconds())
	records := root("grep '\"action\":\"login\"' /var/lib/xos/node/audit.log | grep -c '\"actor\":\"lena@lab\".*\"by\":\"password\"'")
	if records != strconv.Itoa(many+1) {
		t.Errorf("%s logins by password are on record, want %d", records, many+1)
	}
	noSession(ctx, t, node, "lena@lab")
}

// manyAtOnce sets up a node's sshd for a test, with words for its configuration:
// its own limit of ten unauthenticated connections would drop some of twenty at
// random. What it gives takes that back.
func manyAtOnce(root func(string) string, words string) func() {
	root("printf 'MaxStartups 100\\n" + words + "' >/etc/ssh/sshd_config.d/40-test.conf && sshd -t && systemctl reload ssh")
	return func() { root("rm /etc/ssh/sshd_config.d/40-test.conf && systemctl reload ssh") }
}

var timed = regexp.MustCompile(`real (\S+)\nuser (\S+)\nsys (\S+)`)

// twentyAtOnce has a person give a command n times, and tells how long it took,
// and what processor time a command took on the client.
func twentyAtOnce(ctx context.Context, t *testing.T, g *testbed.Grid, person string, n int, command string) (took time.Duration, each float64) {
	t.Helper()
	out, status := as(ctx, t, g, person, "TIMEFORMAT=$'real %R\\nuser %U\\nsys %S'; time seq "+strconv.Itoa(n)+" | xargs -P 20 -I{} sh -c '"+command+" || echo failed {}'")
	m := timed.FindStringSubmatch(out)
	if status != 0 || m == nil || strings.Contains(out, "failed") {
		t.Fatalf("%d times %s: status %d\n%.2000s\n%s", n, command, status, out, journals(ctx, g))
	}
	var f [3]float64
	for i := range f {
		f[i], _ = strconv.ParseFloat(m[i+1], 64)
	}
	return time.Duration(f[0] * float64(time.Second)), (f[1] + f[2]) / float64(n)
}

// noSession waits until nothing of an account's sessions is left: the last is
// systemd's manager for the user, which waits for ten seconds, and then stops.
func noSession(ctx context.Context, t *testing.T, node *testbed.Node, account string) {
	t.Helper()
	eventually(t, 60*time.Second, "no session is left", func() error {
		out, _, err := story.Run(ctx, node, "root", "xos session list | grep "+account)
		if err == nil && strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s", out)
		}
		return err
	})
}
