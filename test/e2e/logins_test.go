package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
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
	// sshd's own limit of ten unauthenticated connections would drop some of
	// twenty at random.
	root("echo 'MaxStartups 100' >/etc/ssh/sshd_config.d/40-test.conf && systemctl reload ssh")
	defer root("rm /etc/ssh/sshd_config.d/40-test.conf && systemctl reload ssh")
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
	real := regexp.MustCompile(`real (\S+)\nuser (\S+)\nsys (\S+)`)
	logins := func(n int, target string) (took time.Duration, clients float64) {
		t.Helper()
		out, status := as(ctx, t, g, "jana", "TIMEFORMAT=$'real %R\\nuser %U\\nsys %S'; time seq "+strconv.Itoa(n)+
			" | xargs -P 20 -I{} sh -c 'ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new "+target+" true </dev/null || echo failed {}'")
		m := real.FindStringSubmatch(out)
		if status != 0 || m == nil || strings.Contains(out, "failed") {
			t.Fatalf("%d logins by %s: status %d\n%.2000s\n%s", n, target, status, out, journals(ctx, g))
		}
		var f [3]float64
		for i := range f {
			f[i], _ = strconv.ParseFloat(m[i+1], 64)
		}
		return time.Duration(f[0] * float64(time.Second)), (f[1] + f[2]) / float64(n)
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
	// All of it is over when it is over: the last is systemd's manager for the
	// user, which waits for ten seconds, and then stops.
	eventually(t, 60*time.Second, "no session is left", func() error {
		out, _, err := story.Run(ctx, node, "root", "xos session list | grep jana@lab")
		if err == nil && strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s", out)
		}
		return err
	})
}
