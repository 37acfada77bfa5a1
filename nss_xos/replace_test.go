package nssxos_test

import (
	"context"
	"encoding/binary"
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

// numbered is the snapshot of physics with this number, in which Alice is in as
// many groups as it says.
func numbered(n int) wire.Snapshot {
	s := wiretest.Physics()
	s.Generation = uint64(n + 1)
	s.Users[0].Gecos, s.Users[0].Dir = fmt.Sprint(n), fmt.Sprintf("/home/%d", n)
	s.Users[0].Groups = []uint32{wiretest.PhysicsGID}
	for i := range n % 8 {
		s.Users[0].Groups = append(s.Users[0].Groups, uint32(wiretest.HiggsGID+i))
	}
	return s
}

// TestRootReaders: threads, and children forked in their midst, look up in
// snapshots that are replaced all the time. No answer is mixed of two, and none
// is of one that had been replaced before the question.
func TestRootReaders(t *testing.T) {
	need.Root(t)
	need.Command(t, "clang")
	need.Command(t, "setarch")
	for _, c := range []struct {
		name, compiler string
		threads        string
		flags          []string
	}{
		{"plain", "cc", "64", nil},
		{"threads", "clang", "8", []string{"-fsanitize=thread"}},
		{"memory", "clang", "8", []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			counter, snapshots, program := filepath.Join(dir, "counter"), filepath.Join(dir, "nss"), filepath.Join(dir, "readers")
			if err := os.Mkdir(snapshots, 0o755); err != nil {
				t.Fatal(err)
			}
			sources, err := filepath.Glob("*.c")
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{"-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, "testdata/readers.c"}, sources...)
			if out, err := exec.Command(c.compiler, append(args, c.flags...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f, err := os.Create(counter)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			written := func(n int) {
				if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(n)), 0); err != nil {
					t.Fatal(err)
				}
			}
			publish := func(n int) {
				if err := wire.WriteSnapshot(snapshots, numbered(n)); err != nil {
					t.Fatal(err)
				}
				written(n)
			}
			publish(0)
			// The sanitizers know the layout of memory that this asks for.
			args = []string{"-R", program, snapshots, counter, c.threads, "alice@physics"}
			if c.name != "memory" { // whose own locks do not survive a fork among threads
				args = append(args, "fork")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			readers := exec.CommandContext(ctx, "setarch", args...)
			readers.Env = append(os.Environ(), "TSAN_OPTIONS=die_after_fork=0")
			readers.WaitDelay = 10 * time.Second // children that hang have the output too
			var out strings.Builder
			readers.Stdout, readers.Stderr = &out, &out
			if err := readers.Start(); err != nil {
				t.Fatal(err)
			}
			n, end := 1, time.Now().Add(2*time.Second)
			for ; time.Now().Before(end); n++ {
				publish(n)
			}
			written(-1)
			err = readers.Wait()
			if err != nil || !strings.HasSuffix(out.String(), " lookups\n") || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("%v\n%s", err, out.String())
			}
			t.Logf("%d snapshots, %s", n, out.String())
		})
	}
}
