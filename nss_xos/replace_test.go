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

// crowd is the same with so many people more, who are in no group.
func crowd(n, people int) wire.Snapshot {
	s := numbered(n)
	s.Users = s.Users[:1]
	for i := range people {
		u := s.Users[0]
		u.Groups = nil // a reader has room for one member only
		u.Name, u.UID, u.GID = fmt.Sprintf("u%d@physics", i), uint32(wiretest.AliceUID+1000+i), uint32(wiretest.AliceUID+1000+i)
		s.Users = append(s.Users, u)
	}
	return s
}

// publisher gives a function that publishes the snapshot of physics with a
// number: all of it in one file, or as a change of a large VO's, whose base is
// written anew from time to time.
func publisher(dir string, large bool) func(n int) error {
	const people = 1000
	if !large {
		return func(n int) error { return wire.WriteSnapshot(dir, numbered(n)) }
	}
	p := wire.NewPublisher(dir, time.Now)
	whole := func(n int) func() (wire.Whole, error) {
		return func() (wire.Whole, error) {
			s := crowd(n, people)
			s.Groups = []wire.SnapshotGroup{{Name: "physics", GID: wiretest.PhysicsGID}}
			for i := range 7 {
				s.Groups = append(s.Groups, wire.SnapshotGroup{Name: fmt.Sprintf("physics:g%d", i), GID: uint32(wiretest.HiggsGID + i)})
			}
			return s.Whole(), nil
		}
	}
	return func(n int) error {
		if n%20 == 0 {
			return p.Publish("physics", whole(n))
		}
		_, err := p.Change("physics", "alice@physics", func() (*wire.SnapshotUser, error) { return &numbered(n).Users[0], nil })
		return err
	}
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
		large          bool
	}{
		{"plain", "cc", "64", nil, false},
		{"threads", "clang", "8", []string{"-fsanitize=thread"}, false},
		{"memory", "clang", "8", []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all"}, false},
		{"large", "cc", "64", nil, true},
		{"large and threads", "clang", "8", []string{"-fsanitize=thread"}, true},
		{"large and memory", "clang", "8", []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all"}, true},
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
			replace := publisher(snapshots, c.large)
			publish := func(n int) {
				if err := replace(n); err != nil {
					t.Fatal(err)
				}
				written(n)
			}
			publish(0)
			// The sanitizers know the layout of memory that this asks for.
			args = []string{"-R", program, snapshots, counter, c.threads, "alice@physics"}
			if !strings.HasSuffix(c.name, "memory") { // whose own locks do not survive a fork among threads
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
