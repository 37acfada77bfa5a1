package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// TestRootOneMachine makes one machine, of each release, a grid with two
// commands, uses it, and takes everything away again.
func TestRootOneMachine(t *testing.T) {
	for _, suite := range testbed.Suites {
		t.Run(string(suite), func(t *testing.T) { oneMachine(t, suite) })
	}
}

func oneMachine(t *testing.T, suite testbed.Suite) {
	dir := os.Getenv("XOS_DEBS")
	if dir == "" {
		need.Missing(t, "packages", "make test-e2e builds them and sets XOS_DEBS")
	}
	need.Root(t)
	debs, err := filepath.Glob(filepath.Join(dir, "xtreemos-*.deb"))
	if err != nil || len(debs) != 4 {
		t.Fatalf("want four packages, found %v (%v)", debs, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	g, err := testbed.Start(ctx, testbed.Config{Name: "solo", Nodes: []string{"solo"}, Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Stop(context.WithoutCancel(ctx))
	n := g.Node("solo")
	run := func(user, command string, status int, texts ...string) string {
		t.Helper()
		out, got, err := story.Run(ctx, n, user, command)
		if err != nil || got != status {
			t.Fatalf("%s: status %d, want %d (%v)\n%s", command, got, status, err, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: the output lacks %q\n%s", command, text, out)
			}
		}
		return out
	}
	run("root", "useradd -m -s /bin/bash ada; ssh-keygen -q -t ed25519 -N '' -f /root/key; mkdir -p -m 700 /root/.ssh; cp /root/key.pub /root/.ssh/authorized_keys", 0)
	before := inventory(ctx, t, n)

	if _, err := n.InstallDebs(ctx, debs...); err != nil {
		t.Fatal(err)
	}
	run("root", "xos up", 0)
	run("root", "xos up", 0) // what is there already stays
	// Its systemd and sshd know all that the packages ask of them.
	if out := run("root", "{ systemd-analyze verify --man=no /usr/lib/systemd/system/xos*; sshd -t; } 2>&1 | grep -i xos; true", 0); out != "" {
		t.Errorf("not understood:\n%s", out)
	}
	run("root", "xos status", 0)
	run("root", "xos vo create lab; printf 'long-enough\\n' | xos user add ada --password; xos vo member add lab ada", 0)
	run("ada", "echo long-enough | xos login ada@lab", 0, "logged in")
	run("ada", "ssh ada@lab@solo 'id -un; findmnt -no FSTYPE -T .; xsub -- sh -c \"echo from a job; exit 9\"; echo status $?'", 0, "ada@lab", "fuse.xosfs", "from a job", "status 9")
	run("ada", "ssh ada@lab@solo 'echo kept > kept; sync kept'", 0)

	// Down and up again: nothing is lost.
	run("root", "xos down", 0)
	run("root", "xos up", 0)
	run("ada", "for i in $(seq 20); do ssh ada@lab@solo 'cat kept' && exit; sleep 0.5; done; exit 1", 0, "kept")

	// Removing keeps what is stored; purging leaves nothing, and sshd serves.
	run("root", "apt-get purge -y -q 'xtreemos-*' && apt-get clean && rm -rf /var/tmp/debs", 0)
	if diff := cmp.Diff(before, inventory(ctx, t, n)); diff != "" {
		t.Errorf("purging left or took (-before +after):\n%s", diff)
	}
	run("root", "sshd -t && ssh -i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes root@localhost true", 0)
	run("root", "systemctl --failed --no-legend | grep xos; getent passwd root ada", 0)
}

func inventory(ctx context.Context, t *testing.T, n *testbed.Node) []string {
	t.Helper()
	list, err := story.Inventory(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
