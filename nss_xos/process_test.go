package nssxos_test

import (
	"debug/elf"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// furnished is a room with the snapshot, the service, and both test programs.
func furnished(t *testing.T) *wiretest.Room {
	t.Helper()
	r := room(t)
	r.Snapshot(t)
	new(wiretest.Service).Serve(t, r.Socket())
	r.Compile(t, "testdata/host.c", "host", "-pthread")
	r.Compile(t, "testdata/loader.c", "loader", "-ldl")
	return r
}

// quiet runs a test program, which prints what is wrong.
func quiet(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if got := output(t, c); got != "" {
		t.Errorf("%v: %s", c.Args[6:], got)
	}
}

// TestRootGoHost: a Go program whose lookups go through the C library.
func TestRootGoHost(t *testing.T) {
	need.Command(t, "go")
	r := furnished(t)
	build := exec.Command("go", "build", "-o", filepath.Join(r.Lib, "gohost"), "./testdata/gohost")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{"alice@physics", "200"}, {"zoe@physics", "20"}} {
		quiet(t, r.Command(append([]string{"/run/lib/gohost"}, args...)...))
	}
}

// TestRootLimits: hosts with little memory, no more processes, or few
// descriptors find the same as others.
func TestRootLimits(t *testing.T) {
	need.Command(t, "prlimit")
	r := furnished(t)
	for _, limit := range []string{"--as=104857600", "--nofile=16", "--stack=262144", "--core=0"} {
		for _, name := range []string{"alice@physics", "zoe@physics"} {
			for _, mode := range []string{"rooms", "state"} {
				quiet(t, r.Command("prlimit", limit, "/run/lib/host", mode, name))
			}
		}
	}
	// Root is exempt from the limit of processes, so a member looks.
	member := r.As(wiretest.BobUID, []int{wiretest.PhysicsGID}, "prlimit", "--nproc=0", "/run/lib/host", "rooms", "alice@physics")
	quiet(t, member)
	if out, err := r.As(wiretest.BobUID, []int{wiretest.PhysicsGID}, "prlimit", "--nproc=0", "/run/lib/host", "fork", "alice@physics", "1").CombinedOutput(); err == nil {
		t.Errorf("the limit is none: it could fork: %s", out)
	}
}

// TestRootSignals: a host that handles SIGCHLD, SIGALRM and SIGPIPE itself,
// also where the service hangs up in the middle.
func TestRootSignals(t *testing.T) {
	r := furnished(t)
	quiet(t, r.Command("/run/lib/loader", "signals", "2000"))
	os.Remove(r.Socket())
	wiretest.Listen(t, r.Socket(), func(c *net.UnixConn) { c.CloseRead() })
	got := output(t, r.Command("/run/lib/loader", "signals", "2"))
	if !strings.HasPrefix(got, "lookup 0: ") {
		t.Errorf("the service hangs up: %s", got)
	}
}

// TestRootReload: loaded and unloaded 10,000 times, the module leaves neither
// memory nor descriptors nor mappings; valgrind sees no error in fewer rounds.
func TestRootReload(t *testing.T) {
	r := furnished(t)
	quiet(t, r.Command("/run/lib/loader", "reload", "10000"))
	need.Command(t, "valgrind")
	out, err := r.Command("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
		"--track-fds=no", "/run/lib/loader", "reload", "20").CombinedOutput()
	if text := string(out); err != nil || strings.Contains(text, "lost") {
		t.Errorf("valgrind: %v\n%s", err, text)
	}
}

// TestRootSetuid: a setuid program finds what its own rights let it, whatever
// its caller's environment says; the module does not even read that.
func TestRootSetuid(t *testing.T) {
	r := furnished(t)
	// Libraries of such a program come from the system's own places only.
	dir := "/usr/lib/x86_64-linux-gnu"
	if _, err := os.Stat(dir); err != nil {
		dir = "/usr/lib/aarch64-linux-gnu"
	}
	evil := filepath.Join(r.Lib, "evil")
	if err := os.Mkdir(evil, 0o755); err != nil {
		t.Fatal(err)
	}
	wiretest.Write(t, filepath.Join(r.Lib, "evil.c"), `#include <stdlib.h>
		__attribute__((constructor)) static void run(void) { abort(); }`)
	r.Compile(t, filepath.Join(r.Lib, "evil.c"), "evil/libnss_xos.so.2", "-shared", "-fPIC")
	script := `set -e
mkdir -p /run/upper /run/work
mount -t overlay -o lowerdir=` + dir + `,upperdir=/run/upper,workdir=/run/work none ` + dir + `
cp /run/lib/libnss_xos.so.2 ` + dir + `/
cp /run/lib/host /run/setuid && chmod 4755 /run/setuid
as_stranger() {
	setpriv --reuid=54321 --regid=54321 --clear-groups env LD_LIBRARY_PATH=/run/lib/evil LD_PRELOAD=/run/lib/evil/libnss_xos.so.2 \
		XOS_SOCKET=/nonexistent XOS_SNAPSHOTS=/nonexistent XOS_SNAP_DIR=/nonexistent TMPDIR=/nonexistent HOME=/nonexistent "$@"
}
if as_stranger true 2>/dev/null; then echo the trap does not work; exit 7; fi
for n in alice@physics zoe@physics; do
	as_stranger /run/setuid state $n
done`
	if out, err := r.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	f, err := elf.Open(filepath.Join(r.Lib, "libnss_xos.so.2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if slices.Contains([]string{"getenv", "secure_getenv", "environ", "__environ", "system", "popen", "execve"}, s.Name) {
			t.Errorf("it uses %s", s.Name)
		}
	}
}
