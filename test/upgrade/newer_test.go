package upgrade

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// builder runs a program in a root of its own over a base, with some directories of
// the host where they are there. The first of them is where it works.
//
//	usage: builder WORK BASE DIRECTORY... -- PROGRAM...
const builder = `set -e
work=$1 base=$2; shift 2
mount -t tmpfs -o mode=755 tmpfs $work
mkdir $work/upper $work/work $work/root
mount -t overlay -o lowerdir=$base,upperdir=$work/upper,workdir=$work/work overlay $work/root
cd $work/root
at=$1
while [ "$1" != -- ]; do
	mkdir -p ./$1
	mount --bind $1 ./$1
	shift
done
shift
mount -t proc proc proc
mount --rbind /dev dev
pivot_root . .
umount -l .
cd $at
exec "$@"`

// onTrixie builds the packages of this tree on Debian 13.
func onTrixie(ctx context.Context, t *testing.T) []string {
	t.Helper()
	base, err := testbed.Trixie.Base(ctx, slog.New(slog.DiscardHandler), t.Output(), "dpkg-dev", "libpam0g-dev")
	if err != nil {
		t.Fatal(err)
	}
	env := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	out, err := env.Output()
	if err != nil {
		t.Fatal(err)
	}
	of := strings.Fields(string(out))
	source := t.TempDir()
	copied := exec.CommandContext(ctx, "/bin/bash", "-o", "pipefail", "-c",
		`git ls-files -co --exclude-standard -z | tar --null -c --ignore-failed-read -T - | tar -x -C "$1"`, "copy", source)
	copied.Dir = "../.."
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("copying the tree: %v\n%s", err, out)
	}
	argv := append([]string{"--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", builder, "builder", t.TempDir(), base, source}, of...)
	build := exec.CommandContext(ctx, "unshare", append(argv, "--", "packaging/deb.sh", "dist")...)
	build.Env = []string{"PATH=" + of[0] + "/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"GOTOOLCHAIN=local", "GOPROXY=off", "GOMODCACHE=" + of[1], "GOCACHE=" + of[2]}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building on Debian 13: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(source, "dist/xtreemos-*.deb"))
	if err != nil || len(debs) != 4 {
		t.Fatalf("want four packages, found %v (%v)", debs, err)
	}
	return debs
}

// TestRootBuiltOnNewer: packages that were built on Debian 13 are refused on 12, by apt
// and by dpkg, with what they lack, and the machine stays as it was: one that has none
// of ours, and one that has and uses them.
func TestRootBuiltOnNewer(t *testing.T) {
	debs := packages(t)
	need.Root(t)
	need.Command(t, "unshare")
	m := machines(t, "newer", "box")[0]
	newer := onTrixie(m.ctx, t)
	var node string
	for _, deb := range newer {
		if strings.Contains(filepath.Base(deb), "-node_") {
			node = "/var/tmp/newer/" + filepath.Base(deb)
			if err := m.PushFile(m.ctx, deb, node); err != nil {
				t.Fatal(err)
			}
		}
	}
	lacks := regexp.MustCompile(`libc6 \(>= 2\.[0-9]+\)`)
	refused := func(what, out string, failed bool) {
		t.Helper()
		if !failed || !lacks.MatchString(out) {
			t.Errorf("%s: failed %v, want true for want of libc6:\n%s", what, failed, out)
		}
		t.Logf("%s:\n%s", what, out)
	}
	byApt := func() {
		t.Helper()
		out, err := m.InstallDebs(m.ctx, newer...)
		if err != nil {
			out += err.Error()
		}
		refused("apt", out, err != nil)
	}
	byDpkg := func() {
		t.Helper()
		out, status, err := story.Run(m.ctx, m.Node, "root", "dpkg -i "+node)
		if err != nil {
			t.Fatal(err)
		}
		refused("dpkg", out, status != 0)
	}
	have := func() []string {
		t.Helper()
		list, err := story.Inventory(m.ctx, m.Node)
		if err != nil {
			t.Fatal(err)
		}
		return append(list, m.run("root", `dpkg --audit; dpkg-query -W -f '${Package} ${Version} ${Status}\n'; dpkg -V xtreemos-client xtreemos-core xtreemos-node xtreemos-storage 2>&1; true`))
	}

	m.run("root", "useradd -m -s /bin/bash ada; mkdir -p /var/tmp/debs; ssh-keygen -q -t ed25519 -N '' -f /root/key; mkdir -p -m 700 /root/.ssh; cp /root/key.pub /root/.ssh/authorized_keys")
	before := have()
	byApt()
	byDpkg()
	if diff := cmp.Diff(before, have()); diff != "" {
		t.Errorf("a machine without our packages (-before +after):\n%s", diff)
	}
	uid := m.settle(debs)
	m.works(uid)
	before = have()
	pid := m.run("root", "systemctl show -P MainPID xos-node")
	byApt()
	byDpkg()
	if diff := cmp.Diff(before, have()); diff != "" {
		t.Errorf("a machine with our packages (-before +after):\n%s", diff)
	}
	if now := m.run("root", "systemctl show -P MainPID xos-node"); now != pid {
		t.Errorf("xos-node was process %s, and is %s", pid, now)
	}
	m.works(uid)
	m.run("root", "ssh -i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes root@localhost true")
}
