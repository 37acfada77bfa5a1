package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

var passwordPrompt = regexp.MustCompile(`Grid password: $`)

// giving types a command that asks for the grid password, and the password.
func giving(ctx context.Context, t *testing.T, sh *testbed.Shell, command, password string) error {
	t.Helper()
	if err := sh.Send(command + "\n"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sh.Expect(ctx, passwordPrompt); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	_, err := sh.Enter(ctx, password)
	return err
}

// TestRootPasswordLogin: with her grid password alone somebody gets in on the
// console, by a local user's su, and by ssh where the site lets that in.
func TestRootPasswordLogin(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "kurt", "lab")
	node, core := g.Node("node1"), g.Node("core")
	root := func(n *testbed.Node, command string) string {
		t.Helper()
		out, status, err := story.Run(ctx, n, "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s: %d %v\n%s", command, status, err, out)
		}
		return out
	}
	root(node, "id guest >/dev/null 2>&1 || useradd -m -s /bin/bash guest")
	shell := func(n *testbed.Node, user string) *testbed.Shell {
		t.Helper()
		sh, err := n.Shell(ctx, "su", "-l", user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sh.Close)
		return sh
	}
	// home is what a session is for: the grid's home, identity and commands.
	home := func(sh *testbed.Shell, how string) {
		t.Helper()
		r := do(ctx, t, sh, "id -un; findmnt -no FSTYPE -T ~; pwd; echo "+how+" >> ways; sync ways; xos whoami | head -1; xsub -- echo from a job")
		for _, text := range []string{"kurt@lab", "fuse.xosfs", "/home/xos/lab/kurt", "from a job"} {
			if !strings.Contains(r.Output, text) {
				t.Errorf("%s: no %q in %s", how, text, r.Output)
			}
		}
	}

	t.Run("su", func(t *testing.T) {
		sh := shell(node, "guest")
		if err := giving(ctx, t, sh, "su - kurt@lab", "wrong-guess"); err == nil || !strings.Contains(err.Error(), "wrong user or password") {
			t.Errorf("a wrong password: %v", err)
		}
		sh = shell(node, "guest")
		if err := giving(ctx, t, sh, "su - nemo@lab", "wrong-guess"); err == nil || !strings.Contains(err.Error(), "wrong user or password") {
			t.Errorf("nobody's password: %v", err)
		}
		sh = shell(node, "guest")
		if err := giving(ctx, t, sh, "su - kurt@lab", "long-enough"); err != nil {
			t.Fatal(err)
		}
		home(sh, "su")
		if out := root(node, "xos session list"); !strings.Contains(out, "kurt@lab") {
			t.Errorf("sessions: %s", out)
		}
		do(ctx, t, sh, "exec sleep 0")
		eventually(t, 10*time.Second, "the session ends", func() error {
			if out := root(node, "xos session list"); strings.Contains(out, "kurt@lab") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})
	t.Run("console", func(t *testing.T) {
		cmd, tty, err := node.StartTerminal(ctx, 50, 200, "setsid", "-c", "login", "kurt@lab") // a session leader, as getty is
		if err != nil {
			t.Fatal(err)
		}
		defer func() { cmd.Process.Kill(); tty.Close(); cmd.Wait() }()
		tty.SetReadDeadline(time.Now().Add(30 * time.Second))
		seen, b := "", make([]byte, 4096)
		for _, s := range []struct{ wait, send string }{
			{"Grid password: ", "long-enough\n"}, {"$ ", "id -un; pwd; echo $XOS_VO-$XOS_NODE\n"}, {"lab-node1", "exit\n"},
		} {
			for !strings.Contains(seen, s.wait) {
				n, err := tty.Read(b)
				if err != nil {
					t.Fatalf("%v after %q", err, seen)
				}
				seen += string(b[:n])
			}
			if _, err := tty.WriteString(s.send); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(seen, "/home/xos/lab/kurt") {
			t.Errorf("the console said %q", seen)
		}
		// Where there is one (Debian 12), login has written to it before PAM.
		if out, err := node.Output(ctx, "sh", "-c", "stat -c %s /var/log/lastlog 2>/dev/null || echo 0"); err != nil || len(strings.TrimSpace(out)) > 8 {
			t.Errorf("lastlog has %s bytes (%v)", out, err)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		const by = "ssh -o PubkeyAuthentication=no -o PreferredAuthentications=keyboard-interactive,password kurt@lab@node1"
		want(ctx, t, g, "kurt", by+" true </dev/null", 255, "Permission denied (publickey)")
		root(node, "printf 'Match User *@*\\n\\tKbdInteractiveAuthentication yes\\n\\tAuthenticationMethods publickey keyboard-interactive\\n' >/etc/ssh/sshd_config.d/50-xos-password.conf && sshd -t && systemctl reload ssh")
		defer root(node, "rm /etc/ssh/sshd_config.d/50-xos-password.conf && systemctl reload ssh")
		sh := shell(g.Node("client"), "kurt")
		if err := giving(ctx, t, sh, by, "long-enough"); err != nil {
			t.Fatal(err)
		}
		home(sh, "ssh")
		want(ctx, t, g, "kurt", "ssh -o BatchMode=yes kurt@lab@node1 'cat ways'", 0, "su", "ssh") // and certificates go on
		sh = shell(g.Node("client"), "kurt")
		if err := sh.Send(by + " true\n"); err != nil {
			t.Fatal(err)
		}
		for range 3 { // sshd's tries
			if _, _, err := sh.Expect(ctx, passwordPrompt); err != nil {
				t.Fatal(err)
			}
			if err := sh.Send("wrong-guess\n"); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := sh.Expect(ctx, regexp.MustCompile("Permission denied")); err != nil {
			t.Error(err)
		}
	})
	t.Run("passwd", func(t *testing.T) {
		out, _, err := story.Run(ctx, node, "root", "pamtester passwd kurt@lab chauthtok") // passwd itself takes no such name
		if err != nil || !strings.Contains(out, "xos passwd") || !strings.Contains(out, "xos login USER@VO --token") {
			t.Errorf("passwd says %s %v", out, err)
		}
		// From a session she changes it herself, knowing the old one.
		const by = "ssh -o BatchMode=yes kurt@lab@node1 "
		want(ctx, t, g, "kurt", by+"\"printf 'wrong-guess\\nlonger-than-that\\n' | xos passwd\"", 77, "wrong user, password or token")
		want(ctx, t, g, "kurt", by+"\"printf 'long-enough\\nshort\\n' | xos passwd\"", 64, "8 to 256 bytes")
		want(ctx, t, g, "kurt", by+"\"printf 'long-enough\\nlong-enough-too\\n' | xos passwd\"", 0, "changed the password of kurt")
		want(ctx, t, g, "kurt", "echo long-enough | xos login kurt@lab", 77, "wrong user, password or token")
		want(ctx, t, g, "kurt", "printf 'long-enough-too\\nlong-enough\\n' | xos passwd && echo long-enough | xos login kurt@lab", 0, "logged in")
	})
	t.Run("without the core", func(t *testing.T) {
		root(core, "systemctl stop xos-core.service xos-core.socket")
		defer root(core, "systemctl start xos-core.socket xos-core.service")
		sh := shell(node, "guest")
		if err := giving(ctx, t, sh, "su - kurt@lab", "long-enough"); err == nil || !strings.Contains(err.Error(), "no answer from") {
			t.Errorf("without the core: %v", err)
		}
	})
	for _, n := range g.Nodes {
		if out := root(n, "journalctl -q --no-pager | grep -c -e long-enough -e wrong-guess || true; grep -rl -e long-enough -e wrong-guess /run/xos /var/lib/xos 2>/dev/null | head -3"); strings.TrimSpace(out) != "0" {
			t.Errorf("%s has a password in its log or state: %s", n.Name, out)
		}
	}
}
