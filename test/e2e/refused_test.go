package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// TestRootRefused: who is not to be let in is not, and both the user and the
// administrator learn why.
func TestRootRefused(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "hugo", "lab")
	node2 := g.Node("node2")

	t.Run("names", func(t *testing.T) {
		for _, name := range []string{"root@lab", "dora@lab", "hugo@physics", "hugo@nowhere", "nobody@lab", "hu:go@lab", "hügo@lab", strings.Repeat("h", 200) + "@lab", "@lab", "hugo@", "root"} {
			want(ctx, t, g, "hugo", "ssh -o BatchMode=yes '"+name+"@node1' id", 255)
		}
		for _, c := range []string{"xos vo create 'a:b'", "xos vo create $'a\\nb'", "xos vo create " + strings.Repeat("v", 200), "xos vo create phÿsics",
			"xos user add root", "xos user add 'a:b'", "xos user add $'a\\nb'", "xos vo member add lab root"} {
			out, status, err := story.Run(ctx, g.Node("core"), "root", c)
			if err != nil || status != 64 && status != 66 || !strings.Contains(out, "xos:") {
				t.Errorf("%s: status %d, want 64 or 66 (%v)\n%s", c, status, err, out)
			}
		}
	})

	t.Run("a VO that the node does not serve", func(t *testing.T) {
		restart := func(edit string) {
			t.Helper()
			if err := node2.Run(ctx, "sh", "-c", edit+"; xos-node --check-config && systemctl restart xos-node"); err != nil {
				t.Fatal(err)
			}
		}
		want(ctx, t, g, "hugo", "ssh hugo@lab@node2 true", 0)
		restart(`sed -i '1i vos = ["elsewhere"]' /etc/xos/node.toml`)
		defer restart("sed -i 1d /etc/xos/node.toml")
		want(ctx, t, g, "hugo", "ssh -o BatchMode=yes hugo@lab@node2 id", 255, "Permission denied")
		out, status, err := story.Run(ctx, node2, "root", "xos explain hugo@lab")
		if err != nil || status != 77 || !strings.Contains(out, "does not serve VO lab") {
			t.Errorf("xos explain: %d %v\n%s", status, err, out)
		}
		if log, err := node2.Output(ctx, "journalctl", "-q", "--no-pager", "-u", "xos-node", "-u", "ssh"); err != nil || !strings.Contains(log, "does not serve VO lab") {
			t.Errorf("the log says nothing of it (%v)", err)
		}
	})

	t.Run("revoked", func(t *testing.T) {
		want(ctx, t, g, "hugo", "cp -a .xos saved && xos logout hugo@lab", 0, "logged out")
		want(ctx, t, g, "hugo", "test -z \"$(ls .xos | grep lab)\" && rm -rf .xos && mv saved .xos", 0)
		eventually(t, 10*time.Second, "a stolen copy is refused", func() error {
			if out, status := as(ctx, t, g, "hugo", "ssh -o BatchMode=yes hugo@lab@node1 id"); status != 255 {
				return fmt.Errorf("status %d %s", status, out)
			}
			return nil
		})
		want(ctx, t, g, "hugo", "xos explain hugo@lab", 77, "revoked")
		want(ctx, t, g, "hugo", "echo long-enough | xos login hugo@lab && ssh hugo@lab@node1 id -un", 0, "hugo@lab")
	})

	t.Run("expired", func(t *testing.T) {
		restart := func(edit string) {
			t.Helper()
			if err := g.Node("core").Run(ctx, "sh", "-c", edit+"; xos-core --check-config && systemctl restart xos-core"); err != nil {
				t.Fatal(err)
			}
		}
		restart(`echo 'user_validity = "15s"' >>/etc/xos/core.toml`)
		defer restart("sed -i /^user_validity/d /etc/xos/core.toml")
		want(ctx, t, g, "hugo", "echo long-enough | xos login hugo@lab && ssh hugo@lab@node1 id -un", 0, "hugo@lab")
		eventually(t, 40*time.Second, "the certificate ends", func() error {
			if out, status := as(ctx, t, g, "hugo", "ssh -o BatchMode=yes hugo@lab@node1 id"); status != 255 {
				return fmt.Errorf("status %d %s", status, out)
			}
			return nil
		})
		want(ctx, t, g, "hugo", "xos whoami", 77, "expired", "xos login")
	})
}
