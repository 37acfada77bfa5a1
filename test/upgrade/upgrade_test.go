// Package upgrade takes machines with our packages on them from Debian 12 to 13,
// with apt and the Debian archive, and tries what must not work: packages built on
// 13 on a machine of 12. It takes minutes, and so is no part of "make test".
package upgrade

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// machine is a node with a short way to run commands in it.
type machine struct {
	t   *testing.T
	ctx context.Context
	*testbed.Node
}

// run runs a shell command that must end with status 0 and print texts.
func (m machine) run(user, command string, texts ...string) string {
	m.t.Helper()
	out, status, err := story.Run(m.ctx, m.Node, user, command)
	if err != nil || status != 0 {
		m.t.Fatalf("%s: %s: status %d (%v)\n%s", m.Name, command, status, err, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			m.t.Errorf("%s: %s: the output lacks %q\n%s", m.Name, command, text, out)
		}
	}
	return strings.TrimSpace(out)
}

// machines boots some of Debian 12.
func machines(t *testing.T, name string, nodes ...string) []machine {
	t.Helper()
	need.Root(t)
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	t.Cleanup(cancel)
	g, err := testbed.Start(ctx, testbed.Config{Name: name, Nodes: nodes, Suite: testbed.Bookworm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Stop(context.WithoutCancel(ctx)) })
	var all []machine
	for _, n := range g.Nodes {
		all = append(all, machine{t, ctx, n})
	}
	return all
}

// packages are those of a directory that a variable names.
func packages(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("XOS_DEBS")
	if dir == "" {
		need.Missing(t, "packages", "make test-upgrade builds them and sets XOS_DEBS")
	}
	debs, err := filepath.Glob(filepath.Join(dir, "xtreemos-*.deb"))
	if err != nil || len(debs) != 4 {
		t.Fatalf("want four packages, found %v (%v)", debs, err)
	}
	return debs
}

// settle makes a machine a grid with a user who has been there, and gives her uid.
func (m machine) settle(debs []string) string {
	m.t.Helper()
	if out, err := m.InstallDebs(m.ctx, debs...); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	m.run("root", "xos up; xos vo create lab; printf 'long-enough\\n' | xos user add ada --password; xos vo member add lab ada")
	// What an administrator may have turned on.
	m.run("root", "systemctl enable --now xos-userdb; echo 'subid: xos' >>/etc/nsswitch.conf; printf 'banned = [\"mallory\"]\nsubids = \"2013265920-2147418111\"\n' >>/etc/xos/node.toml; systemctl restart xos-node")
	m.run("ada", "echo long-enough | xos login ada@lab", "logged in")
	m.run("ada", "ssh ada@lab@box 'echo kept >kept; sync kept'")
	return m.run("ada", "ssh ada@lab@box id -u")
}

// works says that the grid works on a machine as it did.
func (m machine) works(uid string) {
	m.t.Helper()
	m.run("root", `dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' 'xtreemos-*'`,
		"xtreemos-client ii", "xtreemos-core ii", "xtreemos-node ii", "xtreemos-storage ii")
	if out := m.run("root", "dpkg --audit; dpkg -V xtreemos-client xtreemos-core xtreemos-node xtreemos-storage"); out != "" {
		m.t.Errorf("dpkg finds:\n%s", out)
	}
	for _, c := range []struct{ command, want string }{
		{"grep -E '^(passwd|group):' /etc/nsswitch.conf", "files xos systemd"},
		{"grep '^subid:' /etc/nsswitch.conf", "xos"},
		{"for f in auth account session password; do grep -q pam_xos.so /etc/pam.d/common-$f || echo $f lacks it; done; echo all", "all"},
		{"sshd -t && sshd -T -C user=ada@lab,host=x,addr=1.2.3.4", "authorizedprincipalscommand /usr/libexec/xos/xos-principals"},
		{"systemctl is-active xos-node xos-userdb xos-core xos-osd ssh | sort -u", "active"},
		{"systemctl --failed --no-legend | grep -E 'xos|ssh|logind'; echo none", "none"},
		{"grep banned /etc/xos/node.toml", "mallory"},
		{"xos status && xos guard status", "level"},
		{"getent -s xos passwd ada@lab", ":" + uid + ":"},
		{"userdbctl --with-nss=no user ada@lab", uid},
		{"getsubids ada@lab", "ada@lab"},
	} {
		if out := m.run("root", c.command, c.want); c.want == "active" || c.want == "all" || c.want == "none" {
			if out != c.want {
				m.t.Errorf("%s: %s", c.command, out)
			}
		}
	}
	if out := m.run("root", "{ systemd-analyze verify --man=no /usr/lib/systemd/system/xos*; sshd -t; } 2>&1 | grep -i xos; true"); out != "" {
		m.t.Errorf("not understood:\n%s", out)
	}
	got := m.run("ada", "for i in $(seq 30); do ssh ada@lab@box 'id -u; cat kept' && exit; sleep 1; done; exit 1", "kept")
	if first, _, _ := strings.Cut(got, "\n"); first != uid {
		m.t.Errorf("her uid was %s, and is %q", uid, got)
	}
	m.run("ada", "ssh ada@lab@box 'findmnt -no FSTYPE -T .; xsub -- sh -c \"echo from a job; exit 9\"; echo status $?'", "fuse.xosfs", "from a job", "status 9")
}

// upgrade takes a machine to Debian 13 as its release notes say, answering no question.
func (m machine) upgrade() error {
	archive, stop, err := m.ReachMirror(m.ctx)
	if err != nil {
		return err
	}
	defer stop()
	const apt = "apt-get -y -q -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "
	for _, command := range []string{
		"echo 'deb " + archive + " trixie main' >/etc/apt/sources.list; apt-get -q update",
		apt + "upgrade --without-new-pkgs",
		apt + "full-upgrade",
		apt + "--purge autoremove",
		"apt-get clean; rm -rf /var/tmp/debs; : >/etc/apt/sources.list",
	} {
		ctx, cancel := context.WithTimeout(m.ctx, 15*time.Minute)
		out, status, err := story.Run(ctx, m.Node, "root", command)
		cancel()
		fmt.Fprintf(m.t.Output(), "%s# %s\n%s", m.Name, command, out)
		if err != nil || status != 0 {
			return fmt.Errorf("%s: %s: status %d (%w)", m.Name, command, status, err)
		}
	}
	return nil
}

// watch looks users up and logs in, a local one and one of the grid by turns, while all
// below them changes, until what it returns is called: that counts and compares. There
// are moments in which nobody gets in, while sshd is replaced.
func (m machine) watch() (end func()) {
	m.run("root", `mkdir /root/watch; cat >/root/watch/run <<'E'
cd /root/watch
try() { what=$1; shift; if "$@" >>said 2>&1; then echo "$what"; else echo "$what failed"; fi >>tries; }
ssh="ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o ConnectTimeout=10"
while [ ! -e end ]; do
	try lookup:local id -u ada
	try lookup:grid id -u ada@lab
	try login:local $ssh -i /root/key root@localhost true
	try login:grid runuser -u ada -- $ssh ada@lab@box true
done
: >ended
E
setsid sh /root/watch/run >/dev/null 2>&1 &`)
	return func() {
		m.t.Helper()
		out := m.run("root", "cd /root/watch; : >end; until [ -e ended ]; do sleep 0.1; done; sort tries | uniq -c; sort said | uniq -c | sort -rn | head -20")
		m.t.Logf("meanwhile:\n%s", out)
		count := func(what string) (n int) {
			fmt.Sscan(m.run("root", "grep -cx '"+what+"' /root/watch/tries; true"), &n)
			return n
		}
		for _, what := range []string{"lookup", "login"} {
			here, there := count(what+":local failed"), count(what+":grid failed")
			if there > here+2 || count(what+":grid") < 20 {
				m.t.Errorf("%s of the grid's user failed %d times, of the local one %d", what, there, here)
			}
		}
		m.run("root", "rm -r /root/watch")
	}
}

// TestRootUpgrade: a machine that is a grid, and one that has none of our packages,
// become Debian 13. The first one goes on being a grid for a user who is logged in, and
// whoever is there before has the same uid after; purged, it is as the second one.
func TestRootUpgrade(t *testing.T) {
	debs := packages(t)
	both := machines(t, "upgrade", "box", "twin")
	box, twin := both[0], both[1]
	for _, m := range both {
		m.run("root", "useradd -m -s /bin/bash ada; ssh-keygen -q -t ed25519 -N '' -f /root/key; mkdir -p -m 700 /root/.ssh; cp /root/key.pub /root/.ssh/authorized_keys")
	}
	uid := box.settle(debs)
	box.works(uid)
	session, err := box.Shell(box.ctx, "su", "-l", "ada")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Enter(box.ctx, "ssh ada@lab@box"); err != nil {
		t.Fatal(err)
	}
	said := func(command string, texts ...string) {
		t.Helper()
		r, err := session.Do(box.ctx, command)
		for _, text := range texts {
			if err != nil || !strings.Contains(r.Output, text) {
				t.Errorf("who is logged in says %s: lacks %q (%v)\n%s", command, text, err, r.Output)
			}
		}
	}
	said("xsub -- sh -c 'touch going; while sleep 1; do :; done' & until [ -e going ]; do sleep 0.1; done; echo it runs", "it runs")
	node := box.run("root", "systemctl show -P MainPID xos-node")
	watched := box.watch()

	var work sync.WaitGroup
	errs := make([]error, len(both))
	began := time.Now()
	for i, m := range both {
		work.Go(func() { errs[i] = m.upgrade() })
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("upgraded in %d s", int(time.Since(began).Seconds()))
	box.run("root", ". /etc/os-release; echo $VERSION_ID", "13")
	watched()

	if now := box.run("root", "systemctl show -P MainPID xos-node"); now != node {
		t.Errorf("xos-node was process %s, and is %s", node, now)
	}
	said("id -u; cat kept; xsub -- echo a new job; jobs", uid+"\nkept\n", "a new job", "Running")
	box.works(uid)
	box.run("root", "systemctl restart xos-node xos-userdb xos-core xos-osd")
	box.works(uid)
	said("jobs; kill %1; wait %1; echo $?", "Running", "143")

	for _, m := range both {
		if err := m.Reboot(m.ctx); err != nil {
			t.Fatal(err)
		}
	}
	box.works(uid)
	// The same packages once more, as an administrator would who is not sure.
	if out, err := box.InstallDebs(box.ctx, debs...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	box.works(uid)

	box.run("root", "apt-get purge -y -q 'xtreemos-*' && apt-get clean && rm -rf /var/tmp/debs && sed -i '/^subid:/d' /etc/nsswitch.conf")
	left, err := story.Inventory(box.ctx, box.Node)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := story.Inventory(twin.ctx, twin.Node)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain, left); diff != "" {
		t.Errorf("purging left or took (-machine without +machine that had the packages):\n%s", diff)
	}
	box.run("root", "sshd -t && ssh -i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes root@localhost true")
}
