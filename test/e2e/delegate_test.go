package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"context"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// on is a command in a grid session that no agent is forwarded to, and that is
// never asked for anything.
func on(account, node, command string) string {
	return "ssh -a -o BatchMode=yes " + account + "@" + node + " '" + command + "'"
}

// onNode runs a command as root and gives what it printed.
func onNode(ctx context.Context, t *testing.T, n *testbed.Node, command string) string {
	t.Helper()
	out, _, err := story.Run(ctx, n, "root", command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(out)
}

// TestRootSingleSignOn: who logged in to one machine goes on to the others, by
// stock ssh and every command, without being asked and with no agent forwarded;
// nobody else can use what that takes, and it ends with her membership.
func TestRootSingleSignOn(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "pia", "lab")
	newMember(ctx, t, g, "otto", "lab")
	node1, node2, core := g.Node("node1"), g.Node("node2"), g.Node("core")
	const pia, otto = "pia@lab", "otto@lab"

	t.Run("goes on", func(t *testing.T) {
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes node2 \"id -un; hostname\""), 0, pia, "node2")
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes pia@lab@node2 hostname"), 0, "node2")
		want(ctx, t, g, "pia", on(pia, "node1", "echo from-one >seen; sync seen; ssh -o BatchMode=yes node2 \"cat seen; findmnt -no FSTYPE -T .; xos whoami\""), 0,
			"from-one", "fuse.xosfs", pia, "on node2")
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes node2 ssh -o BatchMode=yes node1 hostname"), 0, "node1")
		want(ctx, t, g, "pia", on(pia, "node1", "echo copied >file; scp -q -o BatchMode=yes file node2:copy && ssh -o BatchMode=yes node2 cat copy"), 0, "copied")
		want(ctx, t, g, "pia", on(pia, "node1", "xos whoami && xsub -- echo from a job && xps && xos explain && xos session list && xos delegate --status"), 0,
			"from a job", "a valid certificate would be let in", "acts for pia@lab", "ssh goes on from here")
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes node2 \"xos whoami && xsub -- echo from a job\""), 0, "from a job")
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes otto@lab@node2 id"), 255, "Permission denied")
	})
	t.Run("a forwarded agent comes first", func(t *testing.T) {
		want(ctx, t, g, "pia", "eval $(ssh-agent) >/dev/null; xos login --renew pia@lab >/dev/null && ssh -A -o BatchMode=yes pia@lab@node1 "+
			"'case $SSH_AUTH_SOCK in /run/xos/*) false;; *) ssh -o BatchMode=yes node2 id -un && xos delegate;; esac'; s=$?; ssh-agent -k >/dev/null; exit $s", 0, pia, "signed")
	})
	// A session that stays open: what it has is there for others to try.
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "pia")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh -a pia@lab@node1"); err != nil {
		t.Fatal(err)
	}
	r := do(ctx, t, sh, "echo sock=$SSH_AUTH_SOCK agent=$XOS_SSH_AGENT uid=$(id -u); ssh-add -l")
	found := map[string]string{}
	for _, f := range strings.Fields(r.Output) {
		if k, v, ok := strings.Cut(f, "="); ok {
			found[k] = v
		}
	}
	socket, uid := found["sock"], found["uid"]
	if found["agent"] != socket || socket != "/run/xos/agent/lab/"+uid || uid == "" || !strings.Contains(r.Output, pia) {
		t.Fatalf("her session has %q", r.Output)
	}
	t.Run("others", func(t *testing.T) {
		if r := do(ctx, t, sh, "ssh-add -L >pub; echo x >m; ssh-keygen -Y sign -f pub -n file m"); r.Status == 0 {
			t.Errorf("it signs anything: %s", r.Output)
		}
		if r := do(ctx, t, sh, "ssh-keygen -q -t ed25519 -N \"\" -f k && ssh-add k"); r.Status == 0 {
			t.Errorf("it takes keys: %s", r.Output)
		}
		files := "/run/xos/cred/" + uid + "/onward.json /run/xos/cred/" + uid + "/key.pem"
		out := onNode(ctx, t, node1, "id guest >/dev/null 2>&1 || useradd -m -s /bin/bash guest; su guest -c 'SSH_AUTH_SOCK="+socket+" ssh-add -l; ls /run/xos/agent/lab; cat "+files+"'")
		if strings.Contains(out, "ED25519") || strings.Contains(out, "Seed") || strings.Contains(out, "PRIVATE") || strings.Count(out, "ermission denied") < 3 {
			t.Errorf("a local user reaches it: %s", out)
		}
		if out, status := as(ctx, t, g, "otto", on(otto, "node1", "export SSH_AUTH_SOCK="+socket+"; ssh-add -l; cat "+files+"; ssh -o BatchMode=yes pia@lab@node2 id")); status != 255 ||
			strings.Contains(out, "ED25519") || strings.Contains(out, "Seed") || strings.Contains(out, "PRIVATE") {
			t.Errorf("another of her VO reaches it: %d %s", status, out)
		}
		// Stolen by the machine's root, it opens nothing from another address.
		var saved struct{ Seed, Certificate string }
		if err := json.Unmarshal([]byte(onNode(ctx, t, node1, "cat /run/xos/cred/"+uid+"/onward.json")), &saved); err != nil {
			t.Fatal(err)
		}
		seed, err := base64.StdEncoding.DecodeString(saved.Seed)
		if err != nil || len(seed) != ed25519.SeedSize {
			t.Fatalf("%d bytes %v", len(seed), err)
		}
		block, err := ssh.MarshalPrivateKey(ed25519.NewKeyFromSeed(seed), "")
		if err != nil {
			t.Fatal(err)
		}
		steal := fmt.Sprintf("umask 77; echo '%s' >stolen; echo '%s %s' >stolen-cert.pub", strings.TrimSpace(string(pem.EncodeToMemory(block))), ssh.CertAlgoED25519v01, saved.Certificate)
		use := " ssh -F none -a -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -i stolen pia@lab@node2 id -un"
		want(ctx, t, g, "otto", steal+";"+use, 255, "Permission denied")
		if out := onNode(ctx, t, node1, "cd /root; "+steal+"; "+use+"; rm -f stolen*"); !strings.Contains(out, pia) {
			t.Errorf("on its own machine: %s", out) // else the one before shows nothing
		}
	})
	t.Run("what she left running", func(t *testing.T) {
		left := `nohup sh -c "until test -e go; do sleep 0.2; done; (xps && xsub -- echo from a job && ssh -o BatchMode=yes node1 hostname && echo over) >left 2>&1; sync left" </dev/null >/dev/null 2>&1 & exec cat`
		as(ctx, t, g, "pia", "(sleep 20 | "+on(pia, "node2", left)+") </dev/null >/dev/null 2>&1 &")
		// Its login process is killed: nobody closes the session. The connection, which
		// sshd has in another process of hers, ends with what the client sends.
		login := ""
		eventually(t, 20*time.Second, "the session's processes are known", func() error {
			out := onNode(ctx, t, node2, `f=$(grep -l "session-[a-z0-9]*.scope" /run/xos/sessions/*.json) && basename $f .json`)
			if login = out; !strings.HasPrefix(out, "s-") || strings.Contains(out, "\n") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		onNode(ctx, t, node2, "kill -9 $(xos session list | awk '$1 == \""+login+"\" { print $4 }') && systemctl restart xos-node")
		eventually(t, 20*time.Second, "it is open still, after a restart of xos-node", func() error {
			if out := onNode(ctx, t, node2, "xos session list"); !strings.Contains(out, login) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		do(ctx, t, sh, "touch go && sync go")
		eventually(t, 30*time.Second, "what it left has all that she had", func() error {
			if r := do(ctx, t, sh, "cat left"); !strings.Contains(r.Output, "from a job") || !strings.Contains(r.Output, "over") {
				return fmt.Errorf("%s", r.Output)
			}
			return nil
		})
		eventually(t, 40*time.Second, "it is closed with its last process", func() error {
			if out := onNode(ctx, t, node2, "xos session list"); strings.Contains(out, login) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	})
	t.Run("ssh of the machine's own users", func(t *testing.T) {
		for _, to := range []string{"node2", "pia@lab@node2"} {
			if out := onNode(ctx, t, node1, "env -u XOS_SSH_AGENT ssh -G "+to+" && echo it reads its configuration"); !strings.Contains(out, "it reads its configuration") {
				t.Errorf("to %s: %s", to, out)
			}
		}
	})
	t.Run("ends with the membership", func(t *testing.T) {
		want(ctx, t, g, "pia", on(pia, "node1", "ssh -o BatchMode=yes node2 true"), 0)
		onNode(ctx, t, core, "xos vo member remove lab pia --reason 'her project ended'")
		eventually(t, 10*time.Second, "she is refused, and nothing is left of it", func() error {
			for _, n := range []*testbed.Node{node1, node2} {
				if out, status := as(ctx, t, g, "pia", on(pia, n.Name, "true")); status != 255 {
					return fmt.Errorf("%s: %d %s", n.Name, status, out)
				}
			}
			if left := onNode(ctx, t, node1, "ls -d "+socket+" /run/xos/cred/"+uid+" 2>/dev/null"); left != "" {
				return fmt.Errorf("left: %s", left)
			}
			return nil
		})
	})
}

// TestRootRenewed: with credentials of seconds a session keeps its home, its
// job and its way to other machines over many of them; the VO's policy stops
// that, and wants her signature if it says so.
func TestRootRenewed(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	core, node1 := g.Node("core"), g.Node("node1")
	policy := func(text string) {
		t.Helper()
		if out := onNode(ctx, t, core, "printf '%s' '"+text+"' | xos vo set-policy brief -"); !strings.Contains(out, "set the policy") {
			t.Fatal(out)
		}
	}
	onNode(ctx, t, core, "xos vo create brief")
	policy(`@validity("12s") permit (principal, action, resource);`)
	newMember(ctx, t, g, "paula", "brief")
	const paula = "paula@brief"
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "paula")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh -a paula@brief@node1"); err != nil {
		t.Fatal(err)
	}
	do(ctx, t, sh, "(for i in $(seq 1000); do echo $i >>beat && sync beat || echo broken >>/tmp/broken; sleep 0.3; done) >/dev/null 2>&1 & echo $! >/tmp/beating")
	do(ctx, t, sh, "nohup xsub --node node1 -- sh -c \"for i in \\$(seq 30); do echo \\$i >>job && sync job || exit 9; sleep 1; done; echo job is done\" </dev/null >job.out 2>&1 &")
	uid := onNode(ctx, t, node1, "getent -s xos passwd "+paula+" | cut -d: -f3")
	seen := map[string]bool{}
	eventually(t, 60*time.Second, "three renewals", func() error {
		seen[onNode(ctx, t, node1, "md5sum </run/xos/cred/"+uid+"/cert.pem")] = true
		if r := do(ctx, t, sh, "echo ok >>alive && sync alive && ls beat"); r.Status != 0 {
			t.Fatalf("her home: %s\n%s", r.Output, journals(ctx, g))
		}
		if len(seen) < 4 {
			return fmt.Errorf("%d so far", len(seen)-1)
		}
		return nil
	})
	if r := do(ctx, t, sh, "kill $(cat /tmp/beating); ! cat /tmp/broken && tail -1 beat && ssh -o BatchMode=yes node2 id -un && xsub -- echo from a job"); r.Status != 0 ||
		!strings.Contains(r.Output, paula) || !strings.Contains(r.Output, "from a job") {
		t.Errorf("after them: %d %s\n%s", r.Status, r.Output, journals(ctx, g))
	}
	eventually(t, 40*time.Second, "the job ends well", func() error {
		if r := do(ctx, t, sh, "cat job.out; grep -q \"job is done\" job.out && test $(wc -l <job) = 30"); r.Status != 0 {
			return fmt.Errorf("%s", r.Output)
		}
		return nil
	})
	// No more on from here; then only with her signature.
	policy(`permit (principal, action, resource); forbid (principal, action == Action::"sso", resource);` +
		` forbid (principal, action == Action::"delegate", resource) when { context.mode == "vouched" };`)
	eventually(t, 25*time.Second, "what node2 holds is not renewed", func() error {
		out, status := as(ctx, t, g, "paula", on(paula, "node2", "xos delegate --status"))
		if status != 0 || !strings.Contains(out, "holds no credential") || !strings.Contains(out, "forbids delegate") {
			return fmt.Errorf("%d %s", status, out)
		}
		return nil
	})
	want(ctx, t, g, "paula", on(paula, "node2", "xos delegate"), 66, "no ssh-agent is forwarded")
	want(ctx, t, g, "paula", "eval $(ssh-agent) >/dev/null; xos login --renew paula@brief >/dev/null && ssh -A -o BatchMode=yes paula@brief@node2 "+
		"'xos delegate && cat ~/alive && findmnt -no FSTYPE -T ~'; s=$?; ssh-agent -k >/dev/null; exit $s", 0, "signed", "ssh does not go on from here", "forbids sso", "ok", "fuse.xosfs")
}
