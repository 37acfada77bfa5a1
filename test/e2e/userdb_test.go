package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// TestRootUserDatabase: userdbctl knows a grid user once she has logged in, with
// xos-node stopped, too; that its service is stuck, killed or masked keeps nobody's
// lookups; and what the manual page says to turn it off does.
func TestRootUserDatabase(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "ursula", "lab")
	node := g.Node("node1")
	const (
		direct = "userdbctl --with-nss=no user ursula@lab"
		asked  = "userdbctl user ursula@lab"
		guest  = "setpriv --reuid=4321 --regid=4321 --clear-groups "
		socket = "/run/systemd/userdb/io.xtreemos.UserDatabase"
		own    = "Service: io.xtreemos.UserDatabase"
		dropIn = "/etc/systemd/system/systemd-userdbd.service.d/no-grid.conf"
	)
	root := func(command string, status int, texts ...string) {
		t.Helper()
		out, got, err := story.Run(ctx, node, "root", command)
		if err != nil || got != status {
			t.Errorf("%s: status %d, want %d (%v)\n%s", command, got, status, err, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: the output lacks %q\n%s", command, text, out)
			}
		}
	}
	back := func() {
		t.Helper()
		eventually(t, 10*time.Second, "the service is back", func() error {
			if out, status, err := story.Run(ctx, node, "root", direct); err != nil || status != 0 {
				return fmt.Errorf("status %d (%v)\n%s", status, err, out)
			}
			return nil
		})
	}
	root("systemctl is-active xos-userdb; test ! -e "+socket, 0, "inactive")
	root("systemctl enable --now xos-userdb 2>&1", 0)
	defer story.Run(ctx, node, "root", "systemctl disable --now xos-userdb")
	root("systemctl is-active xos-userdb && grep -E '^(passwd|group):' /etc/nsswitch.conf", 0, "xos systemd")
	root("getent passwd ursula@lab", 0) // a uid is only held for her
	root(direct, 1)
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "ursula")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh ursula@lab@node1"); err != nil {
		t.Fatal(err)
	}
	root(direct, 0, own, "/home/xos/lab/ursula")
	root(asked, 0, own)
	root("userdbctl user $(id -u ursula@lab)", 0, "ursula@lab", own)
	root("userdbctl group lab", 0, "Group name: lab", own)
	root("userdbctl users-in-group lab; userdbctl groups-of-user ursula@lab", 0, "ursula@lab")
	root("userdbctl --no-legend user | grep -c @lab", 1, "0")
	root("getent -s systemd passwd ursula@lab", 0, ":x:")
	root(guest+direct, 1)
	root(guest+"getent passwd ursula@lab", 2)
	root(guest+asked, 0, own) // systemd-userdbd asks as root
	for _, c := range []struct{ command, text string }{
		{"ls /run/systemd/userdb; echo status $?", "status 2"},
		{"ls /run/systemd/.machine/run/userdb; echo status $?", "ermission denied"},
		{asked, "ursula@lab"},
	} {
		if r := do(ctx, t, sh, c.command); !strings.Contains(r.Output, c.text) {
			t.Errorf("in her session, %s: the output lacks %q: %s", c.command, c.text, r.Output)
		}
	}

	t.Run("xos-node stopped", func(t *testing.T) {
		root("systemctl kill --kill-whom=main -s STOP xos-node && "+direct+"; systemctl kill --kill-whom=main -s CONT xos-node", 0, own)
	})
	t.Run("stuck", func(t *testing.T) {
		root("systemctl kill -s STOP xos-userdb && timeout 8 getent passwd no-such-user", 2)
		back()
	})
	t.Run("killed", func(t *testing.T) {
		root("systemctl kill -s KILL xos-userdb && timeout 1 getent passwd no-such-user", 2)
		back()
	})
	t.Run("off", func(t *testing.T) {
		root("systemctl disable --now xos-userdb && test ! -e "+socket, 0)
		root(direct, 1)
		root(asked, 0, "NameServiceSwitch")
		root(guest+asked, 0, "ursula@lab") // through NSS, as root
		root(`printf '[Service]\nInaccessiblePaths=-/run/xos\n' | install -Dm644 /dev/stdin `+dropIn+` && systemctl daemon-reload && systemctl try-restart systemd-userdbd.service`, 0)
		root(guest+asked, 1)
		root("id -un $(id -u ursula@lab); "+guest+"userdbctl user root", 0, "ursula@lab", "User name: root")
		root("rm "+dropIn+" && rmdir $(dirname "+dropIn+") && systemctl daemon-reload && systemctl try-restart systemd-userdbd.service && systemctl enable --now xos-userdb 2>&1", 0)
		back()
	})
	root("systemctl restart xos-node && systemctl is-active xos-userdb", 0)
}
