package nssxos_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

func room(t testing.TB) *wiretest.Room {
	r := wiretest.NewRoom(t, "files xos")
	r.Build(t, "build.sh", "libnss_xos.so.2")
	return r
}

func TestRootGate(t *testing.T) {
	r := wiretest.NewRoom(t, "files")
	wiretest.Gate(t, r.Build(t, "build.sh", "libnss_xos.so.2"), []string{"libc.so.6"}, []string{
		"_nss_xos_getpwnam_r", "_nss_xos_getpwuid_r", "_nss_xos_getgrnam_r", "_nss_xos_getgrgid_r", "_nss_xos_initgroups_dyn",
	})
}

// output gives what a program printed, and "exit N" if it failed.
func output(t testing.TB, c *exec.Cmd) string {
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

const (
	alice  = "alice@physics:*:1879050001:1879050001:Alice:/home/xos/physics/alice:/bin/sh"
	zoe    = "zoe@physics:*:1879050003:1879050003:Zoe:/home/xos/physics/zoe:/bin/sh"
	absent = "exit status 2" // getent's word for a key it did not find
)

func TestRootGetent(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	s := new(wiretest.Service)
	s.Serve(t, r.Socket())
	for _, c := range []struct {
		command, want, calls string
	}{
		{"getent passwd alice@physics", alice, ""},
		{"getent passwd 1879050001", alice, ""},
		{"getent group physics", "physics:*:1900000000:alice@physics,bob@physics", ""},
		// The C library finds the group, and refuses only to print its name
		// as a line; id and ls show it.
		{"getent group physics:higgs", "error writing group entry: Invalid argument", ""},
		{"getent group 1900000000", "physics:*:1900000000:alice@physics,bob@physics", ""},
		{"getent group alice@physics", "alice@physics:*:1879050001:", ""},
		{"getent group 1879050001", "alice@physics:*:1879050001:", ""},
		{"getent initgroups alice@physics", "alice@physics         1900000000 1900000001", ""},
		{"id alice@physics", "uid=1879050001(alice@physics) gid=1879050001(alice@physics) groups=1879050001(alice@physics),1900000000(physics),1900000001(physics:higgs)", ""},
		{"getent passwd zoe@physics", zoe, "GetPwNam zoe@physics"},
		{"getent passwd 1879050003", zoe, "GetPwUID"},
		{"getent group 1879050003", "zoe@physics:*:1879050003:", "GetGrGID"},
		{"getent initgroups zoe@physics", "zoe@physics           1900000000", "InitGroups zoe@physics"},
		{"getent passwd mallory@physics", absent, "GetPwNam mallory@physics"},
		{"getent passwd alice@chemistry", absent, "GetPwNam alice@chemistry"},
		{"getent group physics:none", absent, "GetGrNam physics:none"},

		// What cannot be the grid's costs nothing.
		{"getent passwd root", "root:x:0:0:root:/root:" + rootShell(t), ""},
		{"getent passwd nosuchuser", absent, ""},
		{"getent passwd root@physics", absent, ""},
		{"getent passwd alice@physics:x", absent, ""},
		{"getent passwd Alice@physics", absent, ""},
		{"getent passwd " + strings.Repeat("a", 200) + "@physics", absent, ""},
		{"getent passwd 4000000000", absent, ""},
		{"getent passwd 54321", absent, ""},
		{"getent group sudo", "sudo:x:27:", ""},
		{"getent group nosuchgroup", absent, ""},
		{"getent group docker:x", absent, ""},
		{"getent group 54321", absent, ""},
		{"getent initgroups root", "root", ""},
	} {
		got := output(t, r.Command(strings.Fields(c.command)...))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.command, diff)
		}
		if diff := cmp.Diff(c.calls, strings.TrimSpace(strings.Join(s.Calls(), ","))); diff != "" {
			t.Errorf("%s asked the service: %s", c.command, diff)
		}
	}
	if out := output(t, r.Command("getent", "passwd")); strings.Contains(out, "@") {
		t.Error("grid users are enumerated")
	}
}

func rootShell(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line[strings.LastIndex(line, ":")+1:]
}

// TestRootStrangers: users outside the VO do not see it, members see all of
// it, and neither may make the machine ask.
func TestRootStrangers(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	s := new(wiretest.Service)
	s.Serve(t, r.Socket())
	for _, key := range []string{"passwd alice@physics", "passwd 1879050001", "group physics", "group 1900000000", "initgroups alice@physics", "passwd zoe@physics"} {
		args := append([]string{"getent"}, strings.Fields(key)...)
		want := absent
		if strings.HasPrefix(key, "initgroups") {
			want = "alice@physics" // getent's answer for one without groups
		}
		if got := output(t, r.As(54321, nil, args...)); got != want {
			t.Errorf("a stranger sees %s: %s", key, got)
		}
		got := output(t, r.As(wiretest.BobUID, []int{wiretest.PhysicsGID}, args...))
		if seen := got != want; seen != (key != "passwd zoe@physics") {
			t.Errorf("a member sees of %s: %s", key, got)
		}
	}
	if got := s.Calls(); len(got) != 0 {
		t.Errorf("the service was asked %v", got)
	}
}

// TestRootWithoutService: a service that is dead, wedged or hostile neither
// holds a lookup up nor gets anything believed; snapshots serve on.
func TestRootWithoutService(t *testing.T) {
	hostile := func(fields ...any) func(*net.UnixConn) {
		return func(c *net.UnixConn) {
			op, _, _ := wiretest.ReadRequest(c)
			c.Write(wiretest.Message(op, 0, wiretest.Fields(fields...)))
		}
	}
	r := room(t)
	r.Snapshot(t)
	for _, c := range []struct {
		name  string
		serve func(*net.UnixConn)
		most  time.Duration
	}{
		{"dead", nil, 500 * time.Millisecond},
		{"wedged", func(c *net.UnixConn) { c.Read(make([]byte, 4096)); c.Read(make([]byte, 1)) }, 2 * time.Second},
		{"closing", func(*net.UnixConn) {}, 500 * time.Millisecond},
		{"makes her root", hostile("zoe@physics", 0, 0, "", "/", "/bin/sh"), 500 * time.Millisecond},
		{"gives root's group", hostile("zoe@physics", wiretest.ZoeUID, 0, "", "/", "/bin/sh"), 500 * time.Millisecond},
		{"another name", hostile("bob@physics", wiretest.BobUID, wiretest.BobUID, "", "/", "/bin/sh"), 500 * time.Millisecond},
		{"two lines", hostile("zoe@physics", wiretest.ZoeUID, wiretest.ZoeUID, "\nroot2::0:0", "/", "/bin/sh"), 500 * time.Millisecond},
		{"more fields", hostile("zoe@physics", wiretest.ZoeUID, wiretest.ZoeUID, "", "/", "/bin/sh", "x"), 500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.serve != nil {
				wiretest.Listen(t, r.Socket(), c.serve)
			}
			start := time.Now()
			if got := output(t, r.Command("getent", "passwd", "alice@physics")); got != alice {
				t.Errorf("the snapshot gives %s", got)
			}
			// To start programs, ten times what it took this once: a machine may
			// have more to do than these.
			start, patience := time.Now(), max(time.Second, 10*time.Since(start))
			if got := output(t, r.Command("getent", "passwd", "zoe@physics")); got != absent {
				t.Errorf("got %s", got)
			}
			if d := time.Since(start); d > c.most+patience {
				t.Errorf("it took %v", d)
			}
			if got := output(t, r.Command("id", "-u", "root")); got != "0" {
				t.Errorf("root is %s", got)
			}
		})
	}
}

// TestRootHosts: programs that fork after a lookup, that have threads, small
// buffers or no standard descriptors.
func TestRootHosts(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	new(wiretest.Service).Serve(t, r.Socket())
	r.Compile(t, "testdata/host.c", "host", "-pthread")
	for _, args := range [][]string{
		{"fork", "alice@physics", "1000"}, {"fork", "zoe@physics", "1000"},
		{"threads", "alice@physics", "200"}, {"threads", "zoe@physics", "5"},
		{"rooms", "alice@physics"}, {"rooms", "zoe@physics"},
		{"state", "alice@physics"}, {"state", "zoe@physics"},
	} {
		if got := output(t, r.Command(append([]string{"/run/lib/host"}, args...)...)); got != "" {
			t.Errorf("%v: %s", args, got)
		}
	}
}

// TestRootReplaced: a snapshot that is replaced is seen at once, and one that
// is removed is no more.
func TestRootReplaced(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	s := wiretest.Physics()
	s.Users[0].Dir = "/elsewhere"
	s.Generation++
	if err := wire.WriteSnapshot(r.Snapshots(), s); err != nil {
		t.Fatal(err)
	}
	if got := output(t, r.Command("getent", "passwd", "alice@physics")); !strings.Contains(got, ":/elsewhere:") {
		t.Errorf("got %s", got)
	}
	if err := wire.RemoveSnapshot(r.Snapshots(), "physics"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, r.Command("getent", "passwd", "alice@physics")); got != absent {
		t.Errorf("got %s", got)
	}
}
