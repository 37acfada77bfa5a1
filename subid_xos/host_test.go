package subidxos_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

func TestRootGate(t *testing.T) {
	r := wiretest.NewRoom(t, "files")
	wiretest.Gate(t, r.Build(t, "build.sh", "libsubid_xos.so"), []string{"libc.so.6"}, []string{
		"shadow_subid_has_range", "shadow_subid_list_owner_ranges", "shadow_subid_find_subid_owners", "shadow_subid_free",
	})
}

// first and last of Alice's subordinate ids.
const (
	first = wiretest.AliceSub
	last  = first + 65535
)

// room has both modules, a local user with subordinate ids, and lines that no
// one should write.
func room(t *testing.T) *wiretest.Room {
	r := wiretest.NewRoom(t, "files xos")
	r.Build(t, "build.sh", "libsubid_xos.so")
	r.Build(t, "../nss_xos/build.sh", "libnss_xos.so.2")
	r.Compile(t, "testdata/ask.c", "ask")
	r.Snapshot(t)
	r.Local(t, "carol:x:4242:4242::/:/bin/sh", "dave:x:4243:4243::/:/bin/sh")
	r.Etc(t, "subuid", strings.Join([]string{
		"# a comment", "carol:100000:65536", "4242:165536:10", "carol:165546:5", "dave:300000:10",
		fmt.Sprintf("carol:%d:10", first+65536*7), // the grid's
		"carol:1879048100:200",                    // in part
		"carol:4294967290:10", "carol:5:0", "carol:-5:7", "carol:x:7", "carol:7", "carol:7:8:9", ":9:9", "carol: 12:7",
		"carol:18446744073709551615:7", "alice@physics:400000:10",
	}, "\n"))
	r.Etc(t, "subgid", "carol:200000:65536\n")
	return r
}

func output(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if _, ok := err.(*exec.ExitError); ok {
		return strings.TrimSpace(text + " " + err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRootAnswers(t *testing.T) {
	r := room(t)
	new(wiretest.Service).Serve(t, r.Socket())
	physics := []int{wiretest.PhysicsGID}
	for _, c := range []struct {
		ask, root, bob, stranger string
	}{
		{fmt.Sprint("has alice@physics uid ", first, " 65536"), "0 yes", "0 yes", "1 no"},
		{fmt.Sprint("has alice@physics gid ", last, " 1"), "0 yes", "0 yes", "1 no"},
		{fmt.Sprint("has alice@physics uid ", first, " 65537"), "0 no", "0 no", "1 no"},
		{fmt.Sprint("has alice@physics uid ", first-1, " 2"), "0 no", "0 no", "1 no"},
		{fmt.Sprint("has alice@physics uid ", last+1, " 1"), "0 no", "0 no", "1 no"},
		{fmt.Sprint("has alice@physics uid ", first, " 0"), "0 no", "0 no", "0 no"},
		{fmt.Sprint("has alice@physics uid ", first, " 18446744073709551615"), "0 no", "0 no", "0 no"},
		{"has alice@physics uid 400000 10", "0 no", "0 no", "1 no"}, // a local line is not the grid's word
		{fmt.Sprint("has alice@physics 3 ", first, " 1"), "3 no", "3 no", "3 no"},
		{fmt.Sprint("has bob@physics uid ", first, " 1"), "1 no", "1 no", "1 no"},
		{fmt.Sprint("has mallory@chemistry uid ", first, " 1"), "1 no", "1 no", "1 no"},
		{fmt.Sprint("has ", strings.Repeat("a", 300), " uid ", first, " 1"), "3 no", "3 no", "3 no"},
		{"list alice@physics uid", fmt.Sprint("0 ", first, ":65536"), fmt.Sprint("0 ", first, ":65536"), "1"},
		{fmt.Sprint("list ", wiretest.AliceUID, " uid"), fmt.Sprint("0 ", first, ":65536"), fmt.Sprint("0 ", first, ":65536"), "1"},
		{"list bob@physics gid", "1", "1", "1"},
		{fmt.Sprint("who ", first+5, " uid"), fmt.Sprint("0 ", wiretest.AliceUID), fmt.Sprint("0 ", wiretest.AliceUID), "0"},
		{fmt.Sprint("who ", last+1, " gid"), "0", "0", "0"},
		// Of local users all know, as before.
		{"list carol uid", "0 100000:65536 165536:10 165546:5", "0 100000:65536 165536:10 165546:5", "0 100000:65536 165536:10 165546:5"},
		{"list 4242 gid", "0 200000:65536", "0 200000:65536", "0 200000:65536"},
		{"has carol uid 165530 21", "0 yes", "0 yes", "0 yes"},
		{"has carol uid 165530 22", "0 no", "0 no", "0 no"},
		{"has dave uid 100000 1", "0 no", "0 no", "0 no"},
		{fmt.Sprint("has carol uid ", first+65536*7, " 1"), "0 no", "0 no", "0 no"},
		{"has carol uid 1879048100 1", "0 no", "0 no", "0 no"},
		{"list nobody-known uid", "0", "0", "0"},
		{"who 300001 uid", "0 4243", "0 4243", "0 4243"},
		{"who 99 uid", "0", "0", "0"},
		{"who 300001 9", "3", "3", "3"},
	} {
		words := append([]string{"/run/lib/ask"}, strings.Fields(c.ask)...)
		for who, got := range map[string][2]string{
			"root":       {output(t, r.Command(words...)), c.root},
			"bob":        {output(t, r.As(wiretest.BobUID, physics, words...)), c.bob},
			"a stranger": {output(t, r.As(54321, nil, words...)), c.stranger},
		} {
			if got[0] != got[1] {
				t.Errorf("%s by %s: %q, want %q", c.ask, who, got[0], got[1])
			}
		}
	}
}

// TestRootOverlap: a range that the machine has given to one of its own users as
// well is nobody's of the grid, and neither is any while that cannot be known.
func TestRootOverlap(t *testing.T) {
	r := room(t)
	new(wiretest.Service).Serve(t, r.Socket())
	ask := func() string {
		t.Helper()
		return output(t, r.Command("/run/lib/ask", "has", "alice@physics", "uid", fmt.Sprint(first), "1")) + ", " +
			output(t, r.Command("/run/lib/ask", "list", "alice@physics", "gid"))
	}
	for _, file := range []string{"subuid", "subgid"} {
		for line, want := range map[string]string{
			fmt.Sprintf("carol:%d:1", last):                        "3 no, 3",
			fmt.Sprintf("carol:%d:2", first-1):                     "3 no, 3",
			fmt.Sprintf("carol:%d:999999", first-99999):            "3 no, 3",
			fmt.Sprintf("carol:%d:5\ncarol:%d:5", 7, first+9):      "3 no, 3",
			fmt.Sprintf("carol:%d:1\ncarol:%d:1", first-1, last+1): fmt.Sprintf("0 yes, 0 %d:65536", first),
		} {
			r.Etc(t, "subuid", "")
			r.Etc(t, "subgid", "")
			r.Etc(t, file, line)
			if got := ask(); got != want {
				t.Errorf("%q in %s: %q, want %q", line, file, got, want)
			}
		}
	}
	path := r.Etc(t, "subuid", "")
	r.Etc(t, "subgid", "")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "3 no, 3" {
		t.Errorf("a file that anybody may write: %q", got)
	}
	if got := output(t, r.Command("/run/lib/ask", "list", "carol", "uid")); got != "3" {
		t.Errorf("a file that anybody may write, for a local user: %q", got)
	}
}

// TestRootNoService: without xos-node, or with one that says what it must not,
// grid users have no subordinate ids, and local users have theirs.
func TestRootNoService(t *testing.T) {
	r := room(t)
	ask := func(what string) string {
		t.Helper()
		return output(t, r.Command(append([]string{"/run/lib/ask"}, strings.Fields(what)...)...))
	}
	has := fmt.Sprint("has alice@physics uid ", first, " 1")
	local := func() {
		t.Helper()
		if got := ask("has carol uid 100000 65536"); got != "0 yes" {
			t.Errorf("a local user: %q", got)
		}
	}
	if got := ask(has); got != "2 no" {
		t.Errorf("no service: %q", got)
	}
	local()
	F := wiretest.Fields
	for what, reply := range map[string][]byte{
		"not the grid's":         wiretest.Message(11, 0, F(100000, 65536)),
		"more than the grid has": wiretest.Message(11, 0, F(first, 1<<31)),
		"none":                   wiretest.Message(11, 0, F(first, 0)),
		"too short":              wiretest.Message(11, 0, F(first)),
		"too long":               wiretest.Message(11, 0, F(first, 65536, 1)),
		"of another question":    wiretest.Message(1, 0, F(first, 65536)),
		"hangs up":               nil,
		"an error":               wiretest.Message(11, 7, F("no")),
	} {
		stop := wiretest.Listen(t, r.Socket(), func(c *net.UnixConn) {
			if _, _, err := wiretest.ReadRequest(c); err == nil {
				c.Write(reply)
			}
		})
		if got := ask(has); got != "3 no" && got != "2 no" {
			t.Errorf("%s: %q", what, got)
		}
		if got := ask("list alice@physics uid"); got != "3" && got != "2" {
			t.Errorf("%s: %q", what, got)
		}
		stop()
	}
	// One that hangs.
	release := make(chan struct{})
	stop := wiretest.Listen(t, r.Socket(), func(*net.UnixConn) { <-release })
	began := time.Now()
	if got := ask(has); got != "2 no" || time.Since(began) > 5*time.Second {
		t.Errorf("one that hangs: %q after %v", got, time.Since(began))
	}
	local()
	close(release)
	stop()
}

// TestRootNewuidmap: shadow's own newuidmap and newgidmap, which are setuid, let
// a grid user have a container with her own range, and with nothing else; and
// local users with theirs.
func TestRootNewuidmap(t *testing.T) {
	for _, c := range []string{"newuidmap", "newgidmap"} {
		need.Command(t, c)
	}
	r := room(t)
	r.Subid(t, "xos")
	new(wiretest.Service).Serve(t, r.Socket())
	var dir string
	for _, d := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"} {
		if _, err := os.Stat(filepath.Join(d, "libc.so.6")); err == nil {
			dir = d
		}
	}
	// A process of the user's in a new user namespace waits while its ids are
	// mapped, and then does what only they allow.
	wiretest.Write(t, filepath.Join(r.Lib, "contain"), `set -e
uid=$1 sub=$2 count=$3 gsub=${4:-$2}
mkfifo /tmp/in.$$ /tmp/out.$$
unshare -U sh -c 'echo; read -r _; setpriv --reuid=7 --regid=7 --clear-groups sh -c "id -u; id -g"' </tmp/in.$$ >/tmp/out.$$ &
exec 5>/tmp/in.$$ 6</tmp/out.$$
read -r _ <&6
newuidmap $! 0 $uid 1 1 $sub $count || { kill $!; exit 3; }
newgidmap $! 0 $uid 1 1 $gsub $count || { kill $!; exit 4; }
cat /proc/$!/uid_map
echo >&5
cat <&6
`)
	contain := func(uid int, groups []int, args ...string) string {
		t.Helper()
		script := `set -e
mkdir -p /run/upper /run/work
mount -t overlay -o lowerdir=` + dir + `,upperdir=/run/upper,workdir=/run/work none ` + dir + `
cp /run/lib/lib*_xos.so* ` + dir + `/
mount -t tmpfs -o mode=1777 tmp /tmp
unset LD_LIBRARY_PATH
exec "$@"`
		drop := []string{"setpriv", fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", uid), "--clear-groups"}
		if len(groups) > 0 {
			drop[3] = fmt.Sprint("--groups=", groups[0])
		}
		words := append([]string{"timeout", "20", "sh", "-c", script, "sh"}, drop...)
		words = append(append(words, "sh", "/run/lib/contain", fmt.Sprint(uid)), args...)
		return strings.Join(strings.Fields(output(t, r.Command(words...))), " ")
	}
	physics := []int{wiretest.PhysicsGID}
	mapped := func(uid, sub, count int) string { return fmt.Sprintf("0 %d 1 1 %d %d 7 7", uid, sub, count) }
	if got, want := contain(wiretest.AliceUID, physics, fmt.Sprint(first), "65536"), mapped(wiretest.AliceUID, first, 65536); got != want {
		t.Errorf("her range: %q, want %q", got, want)
	}
	if got, want := contain(4242, nil, "100000", "10", "200000"), mapped(4242, 100000, 10); got != want {
		t.Errorf("a local user's: %q, want %q", got, want)
	}
	for what, args := range map[string][]string{
		"one more":         {fmt.Sprint(first), "65537"},
		"the next":         {fmt.Sprint(last + 1), "10"},
		"bob":              {fmt.Sprint(wiretest.BobUID), "1"},
		"root":             {"0", "1"},
		"a local user's":   {"100000", "10"},
		"a line's, of her": {"400000", "10"},
	} {
		if got := contain(wiretest.AliceUID, physics, args...); !strings.HasSuffix(got, "exit status 3") || !strings.Contains(got, "not allowed") {
			t.Errorf("%s: %q", what, got)
		}
	}
	for what, uid := range map[string]int{"bob": wiretest.BobUID, "a local user": 4242} {
		if got := contain(uid, physics, fmt.Sprint(first), "10"); !strings.HasSuffix(got, "exit status 3") {
			t.Errorf("%s has alice's: %q", what, got)
		}
	}
	// It is off unless nsswitch.conf names it.
	r.Subid(t, "files")
	if got := contain(wiretest.AliceUID, physics, fmt.Sprint(first), "65536"); !strings.HasSuffix(got, "exit status 3") {
		t.Errorf("where it is off: %q", got)
	}
}
