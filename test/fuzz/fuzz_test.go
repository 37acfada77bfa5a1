package fuzz

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

var (
	long  = flag.Duration("for", 5*time.Second, "how long each fuzzer of the modules looks for more inputs")
	merge = flag.Bool("merge", false, "add to the corpus what reaches more code than it")
)

// TestRootReplies: whatever the session service sends, no module reads or
// writes where it must not, tells a program what it must not, or lets a grid
// user by.
func TestRootReplies(t *testing.T) {
	fuzz(t, "reply", func(dir string) {
		for i, b := range replies() {
			write(t, dir, fmt.Sprint(i), b)
		}
	})
}

// TestRootSnapshots: the same of what a snapshot may hold; and it is the same
// read and mapped.
func TestRootSnapshots(t *testing.T) {
	fuzz(t, "snapshot", func(dir string) {
		s := wiretest.Physics()
		many := s
		for i := range 8 {
			u := s.Users[0]
			u.Name, u.UID, u.GID = fmt.Sprintf("u%d@physics", i), uint32(wiretest.AliceUID+10+i), uint32(wiretest.AliceUID+10+i)
			many.Users = append(many.Users[:len(many.Users):len(many.Users)], u)
		}
		empty := s
		empty.Users = nil
		for i, s := range []wire.Snapshot{s, many, empty} {
			into := t.TempDir()
			if err := wire.WriteSnapshot(into, s); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(wire.SnapshotPath(into, "physics"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, fmt.Sprint(i), b)
		}
	})
}

// replies are answers that modules take, and refusals.
func replies() [][]byte {
	F := wiretest.Fields
	all := [][]byte{}
	for op, fields := range map[uint16][]byte{
		1:  F("alice@physics", wiretest.AliceUID, wiretest.AliceUID, "Alice", "/home/xos/physics/alice", "/bin/sh"),
		2:  F("alice@physics", wiretest.AliceUID, wiretest.AliceUID, "", "/", "/bin/sh"),
		3:  F("physics:higgs", wiretest.HiggsGID, []string{"alice@physics", "bob@physics"}),
		4:  F("physics", wiretest.PhysicsGID, []string{"alice@physics"}),
		5:  F([]int{wiretest.PhysicsGID, wiretest.HiggsGID, wiretest.PhysicsGID}),
		6:  F("alice@physics"),
		7:  nil,
		8:  F("welcome\nto the grid"),
		9:  F("s1", []string{"XOS_SESSION=s1", "TZ="}, "hello", 0),
		10: nil,
		11: F(wiretest.AliceSub, 65536),
		12: F(wiretest.AliceUID),
	} {
		all = append(all, wiretest.Message(op, 0, fields), wiretest.Message(op, 2, F("no\x1b\nno")), wiretest.Message(op, 1, F("")))
	}
	return append(all, wiretest.Message(9, 0, F("s1", []string{}, "", 1)))
}

// fuzz runs the fuzzer of a kind on the corpus and fresh seeds, and then lets
// it look for more.
func fuzz(t *testing.T, kind string, seed func(dir string)) {
	need.Root(t) // who may make files of root's
	need.Command(t, "clang")
	need.File(t, "/usr/include/security/pam_modules.h")
	program := filepath.Join(t.TempDir(), kind)
	if out, err := exec.Command("sh", "testdata/build.sh", kind, program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	corpus, err := filepath.Abs(filepath.Join("../../session/wire/testdata", kind))
	if err != nil {
		t.Fatal(err)
	}
	seeds, found := t.TempDir(), t.TempDir()
	seed(seeds)
	run := func(args ...string) string {
		c := exec.Command(program, args...)
		c.Dir, c.Env = found, append(os.Environ(), "XOS_FUZZ_DIR="+t.TempDir(), "ASAN_OPTIONS=detect_leaks=1")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, tail(string(out)), broken(t, found))
		}
		return string(out)
	}
	out := run(fmt.Sprintf("-max_total_time=%d", int(long.Seconds())), "-seed=1", "-max_len=8192", "-timeout=10",
		"-rss_limit_mb=1024", "-print_final_stats=1", seeds, corpus)
	if !strings.Contains(out, "stat::number_of_executed_units") {
		t.Fatalf("it has not run\n%s", tail(out))
	}
	t.Log(summary(out))
	if *merge {
		t.Log(summary(run("-merge=1", "-max_len=8192", corpus, seeds)))
	}
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// summary is what a fuzzer says of itself when it has found nothing.
func summary(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "\tDONE ") || strings.Contains(line, "stat::") || strings.Contains(line, "MERGE-OUTER: the") || strings.Contains(line, "new files") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

// tail is the end of what a fuzzer printed.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// broken shows the inputs that a fuzzer left because they broke something.
func broken(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s: %q", filepath.Base(f), b))
	}
	return strings.Join(all, "\n")
}
