package wiretest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/need"
)

// Room is a mount namespace in which programs find freshly built modules, and
// a /run/xos of the test's own.
type Room struct {
	// Run is the room's /run/xos and Lib its /run/lib, from which modules are
	// loaded, as the test sees them.
	Run, Lib string
	etc      string
}

// furnish makes the room around the command that follows.
const furnish = `set -e
mount -t tmpfs tmpfs /run
mkdir /run/xos /run/lib
mount --bind "$0/run" /run/xos
mount --bind "$0/lib" /run/lib
mount --bind "$0/etc/nsswitch.conf" /etc/nsswitch.conf
[ ! -d "$0/etc/pam.d" ] || mount --bind "$0/etc/pam.d" /etc/pam.d
for f in passwd subuid subgid; do
	[ ! -e "$0/etc/$f" ] || { [ -e /etc/$f ] || : >/etc/$f; mount --bind "$0/etc/$f" /etc/$f; }
done
if [ -S "$0/log" ]; then
	mount -t tmpfs tmpfs /dev
	mknod -m 666 /dev/null c 1 3
	mknod -m 666 /dev/full c 1 7
	mknod -m 666 /dev/urandom c 1 9
	touch /dev/log
	mount --bind "$0/log" /dev/log
fi
LD_LIBRARY_PATH=/run/lib LC_ALL=C exec "$@"`

// NewRoom makes a room whose name service switch has these sources for users
// and groups.
func NewRoom(t testing.TB, sources string) *Room {
	t.Helper()
	need.Root(t)
	for _, c := range []string{"unshare", "setpriv", "cc"} {
		need.Command(t, c)
	}
	dir := t.TempDir()
	r := &Room{Run: filepath.Join(dir, "run"), Lib: filepath.Join(dir, "lib"), etc: filepath.Join(dir, "etc")}
	for _, d := range []string{r.Run, filepath.Join(r.Run, "nss"), r.Lib, r.etc} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	Write(t, filepath.Join(r.etc, "nsswitch.conf"), "passwd: "+sources+"\ngroup: "+sources+"\n")
	return r
}

// Socket is the room's socket and Snapshots its folder of snapshots.
func (r *Room) Socket() string    { return filepath.Join(r.Run, "shim.sock") }
func (r *Room) Snapshots() string { return filepath.Join(r.Run, "nss") }

// Snapshot puts the snapshot of the VO physics into the room.
func (r *Room) Snapshot(t testing.TB) {
	t.Helper()
	if err := wire.WriteSnapshot(r.Snapshots(), Physics()); err != nil {
		t.Fatal(err)
	}
}

// Build makes a module or program, by a script that takes the output's path.
func (r *Room) Build(t testing.TB, script, name string) (path string) {
	t.Helper()
	path = filepath.Join(r.Lib, name)
	run(t, exec.Command("sh", script, path))
	return path
}

// Compile makes a C program.
func (r *Room) Compile(t testing.TB, source, name string, flags ...string) (path string) {
	t.Helper()
	path = filepath.Join(r.Lib, name)
	args := append([]string{"-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", path, source}, flags...)
	run(t, exec.Command("cc", args...))
	return path
}

// PAM configures a service of pluggable authentication.
func (r *Room) PAM(t testing.TB, service, stack string) {
	t.Helper()
	dir := filepath.Join(r.etc, "pam.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Write(t, filepath.Join(dir, service), stack)
}

// Local makes more users local, by lines of passwd(5).
func (r *Room) Local(t testing.TB, lines ...string) {
	t.Helper()
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	Write(t, filepath.Join(r.etc, "passwd"), string(b)+strings.Join(lines, "\n")+"\n")
}

// Etc puts a file of its own into the room's /etc: "subuid" or "subgid".
func (r *Room) Etc(t testing.TB, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(r.etc, name)
	Write(t, path, text)
	return path
}

// Subid makes this the source of subordinate ids.
func (r *Room) Subid(t testing.TB, source string) {
	t.Helper()
	path := filepath.Join(r.etc, "nsswitch.conf")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "subid:")
	Write(t, path, text+"subid: "+source+"\n")
}

// Command runs a program in the room, as root.
func (r *Room) Command(args ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{"-m", "sh", "-c", furnish, filepath.Dir(r.Run)}, args...)...)
}

// As runs it as another user, with these groups besides.
func (r *Room) As(uid int, groups []int, args ...string) *exec.Cmd {
	ids := make([]string, len(groups))
	for i, g := range groups {
		ids[i] = strconv.Itoa(g)
	}
	drop := []string{"setpriv", "--reuid=" + strconv.Itoa(uid), "--regid=" + strconv.Itoa(uid), "--clear-groups"}
	if len(ids) > 0 {
		drop[3] = "--groups=" + strings.Join(ids, ",")
	}
	return r.Command(append(drop, args...)...)
}

// Write makes a file that anyone may read.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, c *exec.Cmd) {
	t.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, out)
	}
}
