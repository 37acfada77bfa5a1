package e2e

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// mustAs is as, for a command that must succeed.
func mustAs(ctx context.Context, t *testing.T, g *testbed.Grid, person, command string) string {
	t.Helper()
	out, status := as(ctx, t, g, person, command)
	if status != 0 {
		t.Fatalf("%s: %d %s", command, status, out)
	}
	return out
}

// within is how soon a removed member must be out, everywhere.
const within = 5 * time.Second

// TestRootRevocation: a removed member is out everywhere in seconds, by sshd's
// own list too; what she runs is ended, or frozen until she is back; bans and
// lost lists shut out grid users and nobody else; refusals explain themselves.
func TestRootRevocation(t *testing.T) {
	ctx, g := needGrid(t)
	core, node := g.Node("core"), g.Node("node1")
	on := func(name, command string) (string, int) {
		t.Helper()
		out, status, err := story.Run(ctx, g.Node(name), "root", command)
		if err != nil {
			t.Fatal(err)
		}
		return out, status
	}
	root := func(name, command string) string {
		t.Helper()
		out, status := on(name, command)
		if status != 0 {
			t.Fatalf("%s: %s: %d\n%s", name, command, status, out)
		}
		return strings.TrimSpace(out)
	}
	// Sshd lets an address wait that was refused often, since OpenSSH 9.8: it is
	// refused for other reasons here.
	for _, at := range []string{"node1", "node2"} {
		if testbed.Chosen() == testbed.Bookworm {
			break
		}
		root(at, "echo 'PerSourcePenalties no' >/etc/ssh/sshd_config.d/40-test.conf && systemctl reload ssh")
		defer on(at, "rm /etc/ssh/sshd_config.d/40-test.conf; systemctl reload ssh")
	}
	newMember(ctx, t, g, "rhea", "lab")
	login := func(user string) { want(ctx, t, g, user, "echo long-enough | xos login "+user+"@lab", 0) }
	ssh := func(user, at, command string) (string, int) {
		return as(ctx, t, g, user, "ssh -o BatchMode=yes -o ConnectTimeout=5 "+user+"@lab@"+at+" '"+command+"'")
	}

	t.Run("removed", func(t *testing.T) {
		for _, at := range []string{"node1", "node2"} {
			if out, status := ssh("rhea", at, "id -un"); status != 0 {
				t.Fatalf("before: %s", out)
			}
		}
		ended := make(chan time.Time, 2)
		for _, at := range []string{"node1", "node2"} {
			go func() { ssh("rhea", at, "touch running; sleep 100"); ended <- time.Now() }()
		}
		for _, at := range []string{"node1", "node2"} {
			eventually(t, 20*time.Second, "her session runs on "+at, func() error {
				if out, status := on(at, "pgrep -u rhea@lab -x sleep"); status != 0 {
					return fmt.Errorf("%s", out)
				}
				return nil
			})
		}
		root("core", "xos vo member remove lab rhea --reason 'left us'")
		begin := time.Now()
		var wg sync.WaitGroup
		for _, at := range []string{"node1", "node2"} {
			wg.Go(func() {
				for {
					if _, status := ssh("rhea", at, "true"); status == 255 {
						break
					}
					if time.Since(begin) > 4*within {
						t.Errorf("%s still lets her in", at)
						return
					}
				}
				took := time.Since(begin)
				t.Logf("%s refused her after at most %v", at, took)
				if took > within {
					t.Errorf("%s let her in for %v", at, took)
				}
			})
		}
		wg.Wait()
		for range 2 {
			select {
			case at := <-ended:
				t.Logf("a session of hers ended after %v", at.Sub(begin))
				if at.Sub(begin) > within {
					t.Errorf("her session went on for %v", at.Sub(begin))
				}
			case <-time.After(within):
				t.Fatal("her session goes on")
			}
		}
		// Sshd knows by itself.
		eventually(t, within, "sshd refuses by its list", func() error {
			ssh("rhea", "node1", "true")
			if log := root("node1", "journalctl -q --no-pager -u 'ssh*' --since -1min"); !strings.Contains(log, "revoked by file /etc/xos/trust/ssh_revoked.krl") {
				return fmt.Errorf("%s", log)
			}
			return nil
		})
		want(ctx, t, g, "rhea", "xos explain", 77, "left us", "refused  grid/revocation", "xos vo member add")
		serial := strings.TrimSpace(mustAs(ctx, t, g, "rhea", `ssh-keygen -L -f ~/.xos/rhea@lab/id_ed25519-cert.pub | sed -n 's/.*Serial: //p'`))
		want(ctx, t, g, "rhea", "xos explain cert ~/.xos/rhea@lab/id_ed25519-cert.pub", 77, serial)
		want(ctx, t, g, "rhea", "xos ca crl --json", 0, `"`+serial+`"`)
		want(ctx, t, g, "rhea", "xos ca crl -o crl.pem && head -1 crl.pem", 0, "BEGIN X509 CRL")
		root("core", "xos vo member add lab rhea")
		login("rhea")
		eventually(t, within, "a member again she gets in", func() error {
			if out, status := ssh("rhea", "node1", "true"); status != 0 {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})

	t.Run("frozen", func(t *testing.T) {
		done := make(chan string, 1)
		go func() {
			out, status := ssh("rhea", "node1", "xsub -- sh -c \"for i in \\$(seq 12); do echo job; sleep 1; done\" & for i in $(seq 12); do echo tick; sleep 1; done; wait")
			done <- fmt.Sprint(status, " ", strings.Count(out, "tick"), " ", strings.Count(out, "job"))
		}()
		busy := `pgrep -x -u rhea@lab sleep | wc -l`
		eventually(t, 30*time.Second, "session and job run", func() error {
			select {
			case out := <-done:
				t.Fatalf("both ended before they were seen together: %s", out)
			default:
			}
			if n := root("node1", busy); n != "2" && root("node2", busy)+n != "11" {
				return fmt.Errorf("%s here", n)
			}
			return nil
		})
		root("core", "xos vo member remove lab rhea --running freeze")
		standing := func() string {
			// What has cpu time or forks is not standing still: the pids stay.
			return root("node1", "pgrep -d, -u rhea@lab || true") + ";" + root("node2", "pgrep -d, -u rhea@lab || true")
		}
		eventually(t, within, "all of it stands still", func() error {
			if out := root("node1", "xos status"); !strings.Contains(out, "frozen:    1 accounts") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		before := standing()
		time.Sleep(2500 * time.Millisecond) // longer than any of its sleeps
		if now := standing(); now != before || !strings.Contains(now, ",") {
			t.Errorf("it goes on: %s, then %s", before, now)
		}
		t.Log(root("node1", "journalctl -q --no-pager -u xos-node --since -1min | grep 'is frozen'; cat /proc/$(pgrep -n -u rhea@lab)/cgroup"))
		if _, status := ssh("rhea", "node1", "true"); status != 255 {
			t.Error("she was let in")
		}
		out, status := on("node1", "xos explain rhea@lab")
		if status != 77 || !strings.Contains(out, "is frozen until") {
			t.Errorf("explained as %d %s", status, out)
		}
		root("node1", "systemctl restart xos-node") // it must not forget
		root("core", "xos vo member add lab rhea | grep 'removal is undone'")
		select {
		case out := <-done:
			if out != "0 12 12" {
				t.Errorf("what was frozen ended with %s; want 0 12 12", out)
			}
		case <-time.After(time.Minute):
			t.Fatalf("what was frozen does not go on\n%s", journals(ctx, g))
		}
		if out, status := ssh("rhea", "node1", "true"); status != 0 {
			t.Errorf("her certificate from before is refused: %s", out)
		}
	})

	t.Run("finishing", func(t *testing.T) {
		done := make(chan string, 1)
		go func() {
			out, status := ssh("rhea", "node2", "xsub -- sh -c \"touch begun; for i in 1 2 3 4 5 6; do echo job; sleep 1; done; echo kept > end; sync end\" & for i in 1 2 3 4 5 6; do echo tick; sleep 1; done; wait; cat end; xsub -- true")
			done <- fmt.Sprint(status, " ", strings.Count(out, "tick"), " ", strings.Count(out, "job\n"), " ", strings.Contains(out, "kept"))
		}()
		eventually(t, 30*time.Second, "session and job run", func() error {
			if out, status := ssh("rhea", "node1", "test -e begun && rm begun"); status != 0 {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		root("core", "xos vo member remove lab rhea --running finish")
		eventually(t, within, "no new session", func() error {
			if _, status := ssh("rhea", "node2", "true"); status != 255 {
				return fmt.Errorf("let in")
			}
			return nil
		})
		select {
		case out := <-done:
			// Its last word would have been a new job.
			if !strings.HasSuffix(out, " 6 6 true") || strings.HasPrefix(out, "0 ") {
				t.Errorf("what may finish ended with %s", out)
			}
		case <-time.After(40 * time.Second):
			t.Fatalf("it does not finish\n%s", journals(ctx, g))
		}
		root("core", "xos vo member add lab rhea")
		login("rhea")
	})

	t.Run("without the list", func(t *testing.T) {
		root("node1", "id local2 >/dev/null 2>&1 || useradd -m -s /bin/bash local2; install -d -m 700 -o local2 -g local2 /home/local2/.ssh")
		key := mustAs(ctx, t, g, "rhea", "ssh-keygen -q -t ed25519 -N '' -f local2 && cat local2.pub")
		root("node1", "echo '"+strings.TrimSpace(key)+"' > /home/local2/.ssh/authorized_keys; chown local2 /home/local2/.ssh/authorized_keys; chmod 600 /home/local2/.ssh/authorized_keys")
		local := func(when string) {
			t.Helper()
			want(ctx, t, g, "rhea", "ssh -i local2 -o StrictHostKeyChecking=no -o IdentitiesOnly=yes -o BatchMode=yes local2@node1 id -un", 0, "local2")
		}
		root("node1", "systemctl stop xos-node; mv /etc/xos/trust/ssh_revoked.krl /root/krl")
		defer on("node1", "rm -rf /etc/xos/trust/ssh_revoked.krl; systemctl start xos-node")
		for _, way := range []string{"true", "mkdir /etc/xos/trust/ssh_revoked.krl"} {
			root("node1", way)
			local(way)
			ssh("rhea", "node1", "true")
			log := root("node1", "journalctl -q --no-pager -u 'ssh*' --since -5s")
			if !strings.Contains(log, "ssh_revoked.krl") {
				t.Errorf("%s: sshd does not say that its list is missing: %s", way, log)
			}
		}
		root("node1", "rmdir /etc/xos/trust/ssh_revoked.krl; systemctl start xos-node; test -s /etc/xos/trust/ssh_revoked.krl || sleep 1; ssh-keygen -Q -l -f /etc/xos/trust/ssh_revoked.krl | grep -q 'KRL version'")
		eventually(t, 10*time.Second, "the list is back, and she gets in", func() error {
			if out, status := ssh("rhea", "node1", "true"); status != 0 {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})

	t.Run("banned", func(t *testing.T) {
		finger := strings.Fields(mustAs(ctx, t, g, "rhea", "ssh-keygen -l -f ~/.xos/rhea@lab/id_ed25519-cert.pub"))[1]
		for _, subject := range []string{"rhea", finger} {
			root("core", "xos ban add "+subject+" --reason 'laptop stolen'")
			eventually(t, within, subject+" is refused", func() error {
				if _, status := ssh("rhea", "node1", "true"); status != 255 {
					return fmt.Errorf("let in")
				}
				return nil
			})
			if out := root("core", "xos ban list"); !strings.Contains(out, subject) {
				t.Errorf("list: %s", out)
			}
			want(ctx, t, g, "rhea", "xos explain", 77, "laptop stolen", "xos ban remove")
			root("core", "xos ban remove "+subject)
		}
		login("rhea") // on a new key
		eventually(t, within, "her new key is let in", func() error {
			if out, status := ssh("rhea", "node1", "true"); status != 0 {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})

	t.Run("explained", func(t *testing.T) {
		root("core", `printf 'permit (principal, action, resource);\nforbid (principal == User::"rhea@lab", action, resource);' | xos vo set-policy lab -`)
		defer root("core", "printf '' | xos vo set-policy lab -")
		var id string
		eventually(t, within, "a refusal has an id in sshd's log", func() error {
			ssh("rhea", "node1", "true")
			log := root("node1", "journalctl -q --no-pager -t xos-principals --since -1min")
			// Others were refused in that minute, too, for other reasons.
			all := regexp.MustCompile(`VO lab forbids.*xos explain login (r-[0-9a-f]{12})`).FindAllStringSubmatch(log, -1)
			if all == nil {
				return fmt.Errorf("%s", log)
			}
			id = all[len(all)-1][1]
			return nil
		})
		out, status := on("node1", "xos explain login "+id)
		for _, text := range []string{"rhea@lab refused", "refused  vo/lab/", "xos vo set-policy", "passed   site/vos", "passed   grid/ban"} {
			if status != 77 || !strings.Contains(out, text) {
				t.Errorf("explained as %d without %q:\n%s", status, text, out)
			}
		}
		// The core, where she can ask, has nothing against her.
		want(ctx, t, g, "rhea", "xos explain user rhea@lab", 0, "member of lab", "passed   vo/member", "passed   grid/ban")
		if out, _ := on("node1", "xos explain login "+id+" --json"); !regexp.MustCompile(`(?s)"name": *"grid/ban".*"change": *"`).MatchString(out) {
			t.Errorf("as JSON: %s", out)
		}
		if err := node.Run(ctx, "systemctl", "restart", "xos-node"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "it is known after a restart", func() error {
			if out, status := on("node1", "xos explain login "+id); status != 77 || !strings.Contains(out, "refused  vo/lab/") {
				return fmt.Errorf("%d %s", status, out)
			}
			return nil
		})
	})

	// A file that says too much, as one would that was not taken away in time: sshd
	// lets her in by it, and the session service does not.
	t.Run("vouched for too long", func(t *testing.T) {
		root("core", `printf 'permit (principal, action, resource);\nforbid (principal == User::"rhea@lab", action, resource);' | xos vo set-policy lab -`)
		defer root("core", "printf '' | xos vo set-policy lab -")
		eventually(t, within, "the policy is there", func() error {
			if out, status := on("node1", "xos explain rhea@lab"); status != 77 || !strings.Contains(out, "refused  vo/lab/") {
				return fmt.Errorf("%d %s", status, out)
			}
			return nil
		})
		const file = "/run/xos/principals/home/xos/lab/rhea/as"
		root("node1", "install -d -m 755 "+path.Dir(file)+"; echo rhea@lab >"+file)
		defer root("node1", "rm "+file)
		// A time would be a second's, in which she may have come before.
		_, since, _ := strings.Cut(root("node1", "journalctl -q -n 0 --show-cursor"), "-- cursor: ")
		for _, how := range []string{"ssh rhea@lab@node1 'touch /tmp/rhea-was-here'", "ssh -tt rhea@lab@node1", "ssh -N -o ExitOnForwardFailure=yes -L 7777:localhost:22 rhea@lab@node1",
			"ssh -s rhea@lab@node1 sftp"} {
			command, _ := strings.CutPrefix(how, "ssh ")
			if out, status := as(ctx, t, g, "rhea", "timeout 20 ssh -o BatchMode=yes "+command+" </dev/null"); status != 255 {
				t.Errorf("%s: %d %s", how, status, out)
			}
		}
		log := root("node1", "journalctl -q --no-pager -u 'ssh*' --after-cursor '"+strings.TrimSpace(since)+"'")
		if n := strings.Count(log, "Accepted publickey for rhea@lab"); n != 4 {
			t.Errorf("sshd took the file's word %d times:\n%s", n, log)
		}
		if out, _ := on("node1", "ps -u rhea@lab -o pid=,args= | grep -v -e 'systemd --user' -e '(sd-pam)'; ls /tmp/rhea-was-here /tmp/xos-private-*/*/rhea-was-here 2>/dev/null"); strings.TrimSpace(out) != "" {
			t.Errorf("something came of it: %s", out)
		}
		root("node1", "systemctl stop xos-node")
		out, status := as(ctx, t, g, "rhea", "timeout 20 ssh -o BatchMode=yes rhea@lab@node1 true")
		root("node1", "systemctl start xos-node")
		if status != 255 || !strings.Contains(out, "(xos-node) does not answer") {
			t.Errorf("without the session service: %d %s", status, out)
		}
		root("node1", "install -d -m 755 "+path.Dir(file)+"; touch "+file) // for its removal
	})

	t.Run("offline", func(t *testing.T) {
		cert := strings.Fields(mustAs(ctx, t, g, "rhea", "cat ~/.xos/rhea@lab/id_ed25519-cert.pub"))
		if err := core.Run(ctx, "systemctl", "stop", "xos-core.service", "xos-core.socket"); err != nil {
			t.Fatal(err)
		}
		defer core.Run(ctx, "systemctl", "start", "xos-core.socket", "xos-core.service")
		eventually(t, 20*time.Second, "the node says how long it goes on", func() error {
			if out := root("node1", "xos status"); !strings.Contains(out, "unreachable: valid certificates are accepted until ") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		// As sshd asks; a session's shell would wait for its home's metadata.
		if out, status := on("node1", "getent passwd rhea@lab >/dev/null; /usr/libexec/xos/xos-principals rhea@lab "+cert[0]+" "+cert[1]); status != 0 || !strings.Contains(out, "rhea@lab") {
			t.Errorf("cut off, the node refuses her: %s", out)
		}
		if out, _ := on("node1", "xos explain rhea@lab"); !strings.Contains(out, "the core cannot be reached; node1 decides by the news of") {
			t.Errorf("explained as %s", out)
		}
	})
}
