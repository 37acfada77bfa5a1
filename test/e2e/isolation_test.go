package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// TestRootIsolation: two VOs' administrators agree, from their own machine, that
// their members reach each other's ports; a machine whose site permits it lets
// them, and stops when one takes her word back. Others change nothing.
func TestRootIsolation(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	root := func(node, command string) {
		t.Helper()
		if out, status, err := story.Run(ctx, g.Node(node), "root", command); err != nil || status != 0 {
			t.Fatalf("%s: %s: %d %v\n%s", node, command, status, err, out)
		}
	}
	root("core", "xos vo create yonder && printf 'permit (principal, action, resource);' >/tmp/all.cedar && xos vo set-policy yonder /tmp/all.cedar")
	newMember(ctx, t, g, "yara", "lab")
	newMember(ctx, t, g, "zeno", "yonder")
	newMember(ctx, t, g, "xenia", "lab")
	root("core", "xos vo member add lab yara --role admin && xos vo member add yonder zeno --role admin")
	for account, user := range map[string]string{"yara@lab": "yara", "zeno@yonder": "zeno"} {
		want(ctx, t, g, user, "echo long-enough | xos login "+account, 0, "logged in")
	}
	root("node2", `cp /etc/xos/node.toml /root/node.toml && printf 'share = ["network"]\n' >/etc/xos/isolation.toml &&
		sed -i '1i isolation = "/etc/xos/isolation.toml"' /etc/xos/node.toml && systemctl restart xos-node`)
	defer func() {
		if out, status, err := story.Run(context.WithoutCancel(ctx), g.Node("node2"), "root", "cp /root/node.toml /etc/xos/node.toml && rm /etc/xos/isolation.toml && systemctl restart xos-node"); err != nil || status != 0 {
			t.Errorf("%d %v %s", status, err, out)
		}
	}()

	const port = "14711"
	serving, stop := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_, _, _ = story.Run(serving, g.Node("client"), "zeno", "ssh -tt zeno@yonder@node2 \"perl -MIO::Socket::INET -e '"+
			`\$l = IO::Socket::INET->new(Listen => 9, LocalAddr => q(127.0.0.1), LocalPort => `+port+`, ReuseAddr => 1) or die; while (\$c = \$l->accept) { print \$c qq(hello\\n); close \$c }`+"'\"")
	}()
	defer func() { stop(); <-served }()
	reach := func(user, account string) error {
		out, _ := as(ctx, t, g, user, "ssh "+account+"@node2 'exec 3<>/dev/tcp/127.0.0.1/"+port+" && read x <&3 && echo $x'")
		if !strings.Contains(out, "hello") {
			return fmt.Errorf("%s", out)
		}
		return nil
	}
	closed := func(when string) {
		t.Helper()
		eventually(t, 20*time.Second, "lab is kept from yonder's port "+when, func() error {
			if reach("yara", "yara@lab") == nil {
				return fmt.Errorf("it reaches it")
			}
			return nil
		})
	}
	open := func(when string) {
		t.Helper()
		eventually(t, 20*time.Second, "lab reaches yonder's port "+when, func() error { return reach("yara", "yara@lab") })
	}
	set := func(user, vo, policy string, status int, texts ...string) {
		t.Helper()
		want(ctx, t, g, user, "printf '"+policy+"' | xos vo isolation set "+vo+" -", status, texts...)
	}
	defer func() {
		if out, status, err := story.Run(context.WithoutCancel(ctx), g.Node("core"), "root", "printf '' | xos vo isolation set lab -"); err != nil || status != 0 {
			t.Errorf("%d %v %s", status, err, out)
		}
	}()
	const toYonder, toLab = `[share]\nnetwork = ["yonder"]\n`, `[share]\nnetwork = ["lab"]\n`

	eventually(t, 20*time.Second, "yonder reaches its own port", func() error { return reach("zeno", "zeno@yonder") })
	closed("while nobody has said anything")
	set("yara", "lab", toYonder, 0, "version")
	closed("while yonder has not agreed")
	set("zeno", "yonder", toLab, 0, "version")
	open("when both agree")

	set("xenia", "lab", "", 77, "xenia@lab does not administer lab", "role admin")
	want(ctx, t, g, "xenia", "xos vo isolation show lab", 0, "yonder")
	eventually(t, 15*time.Second, "all machines say that they have it in force", func() error {
		out, _ := as(ctx, t, g, "xenia", "xos vo isolation show lab")
		if m := regexp.MustCompile(`in force on (\d+) of (\d+) machines`).FindStringSubmatch(out); m == nil || m[1] != m[2] || m[1] < "2" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	want(ctx, t, g, "xenia", "xos vo isolation show yonder", 66, "neither root on the core nor logged in to")
	set("yara", "lab", `[share]\nnetwork = ["yonder"]\nkernel = ["*"]\n`, 64, "line 3")
	open("after a policy with a mistake")
	want(ctx, t, g, "yara", "printf '' | xos vo isolation set lab - --if-version 0123456789abcdef", 75, "has been changed")
	want(ctx, t, g, "yara", "printf '' | xos vo isolation set lab - --if-version \"\"", 64, "--if-version is empty")
	open("after what was refused")
	want(ctx, t, g, "zeno", `v=$(xos vo isolation show yonder --json | sed -n 's/.*"version": *"\([0-9a-f]*\)".*/\1/p') && printf '' | xos vo isolation set yonder - --if-version $v`, 0, "version")

	closed("when yonder has taken its word back")
	want(ctx, t, g, "yara", "xos audit list --vo lab", 0, "SetIsolation", "yara@lab", "xenia@lab does not administer lab")
}
