package nssxos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// alone is a crowd in which nobody is in more groups than the VO's.
func alone(n, people int) wire.Snapshot {
	s := crowd(n, people)
	s.Users[0].Groups = []uint32{wiretest.PhysicsGID}
	return s
}

// TestRootSteps: wherever in a lookup a process is forked by another thread,
// the child knows of both files of a snapshot whether it has them mapped. It
// finds what is so, uses no snapshot of which it has only half or parts that do
// not belong together, unmaps nothing twice, and soon has the whole snapshot
// mapped itself.
func TestRootSteps(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	const others = 20 // more than there are places
	// Files of one size are mapped in place of each other, and others are not.
	stages := []struct{ base, head int }{
		{0, 1}, {0, 1}, {0, 200}, {600, 1}, {600, 1}, {600, 60}, {1300, 60}, {1300, 1}, {0, 1}, {600, 1}, {600, 1},
	}
	for n, stage := range stages {
		into := filepath.Join(dir, strconv.Itoa(n))
		if err := os.Mkdir(into, 0o755); err != nil {
			t.Fatal(err)
		}
		if stage.base == 0 {
			if err := wire.WriteSnapshot(into, alone(n, stage.head)); err != nil {
				t.Fatal(err)
			}
		} else {
			p := wire.NewPublisher(into, time.Now)
			if err := p.Publish("physics", func() (wire.Whole, error) { return alone(1000+n, stage.base).Whole(), nil }); err != nil {
				t.Fatal(err)
			}
			now := alone(n, stage.head).Users
			for _, u := range now[:stage.head] {
				if _, err := p.Change("physics", u.Name, func() (*wire.SnapshotUser, error) { return &u, nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	last := filepath.Join(dir, strconv.Itoa(len(stages)-1))
	for i := range others {
		vo := string(rune('a' + i))
		id := uint32(wiretest.AliceUID + 5000 + 2*i)
		err := wire.WriteSnapshot(last, wire.Snapshot{VO: xos.VOName(vo), Generation: 1, GID: id, Groups: []wire.SnapshotGroup{{Name: vo, GID: id}},
			Users: []wire.SnapshotUser{{Passwd: wire.Passwd{Name: "x@" + vo, UID: id + 1, GID: id + 1, Dir: "/", Shell: "/bin/sh"}, Groups: []uint32{id}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "steps")
	sources, err := filepath.Glob("*.c")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-include", "testdata/steps.h", "-o", program, "testdata/steps.c"}, sources...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command("timeout", "60", program, dir, strconv.Itoa(len(stages)), strconv.Itoa(others)).CombinedOutput()
	forks, _ := strconv.Atoi(strings.TrimSuffix(string(out), " forks\n"))
	if err != nil || forks < 500 {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%d forks", forks)
}
