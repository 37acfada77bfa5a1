package nssxos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// TestRootRights: a snapshot that a process keeps mapped answers it only while
// the process may read the file: its ids count at once, all else after a tenth
// of a second.
func TestRootRights(t *testing.T) {
	need.Root(t)
	dir, err := os.MkdirTemp("/tmp", "rights") // which strangers may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	snapshots, program := filepath.Join(dir, "nss"), filepath.Join(dir, "rights")
	for _, d := range []string{dir, snapshots} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.WriteSnapshot(snapshots, wiretest.Physics()); err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.c")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, "testdata/rights.c"}, sources...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program, snapshots, "alice@physics", strconv.Itoa(wiretest.AliceUID), strconv.Itoa(wiretest.PhysicsGID)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{
		"member: name id",
		"no member at once:",
		"member again: name id",
		"root: name id",
		"root from memory: name id",
		"no member from memory:",
		"member from memory: name id",
		"member without files:",
		"member with files: name id",
		"member of what root alone may read:",
		"root: name id",
		"root in another root directory:",
	}
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); d != "" {
		t.Error(d)
	}
}
