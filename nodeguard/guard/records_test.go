package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
)

func loginRecord(kind, pid int, line, user string, at int64) record {
	r := make(record, recordSize)
	binary.NativeEndian.PutUint16(r, uint16(kind))
	binary.NativeEndian.PutUint32(r[4:], uint32(pid))
	copy(r[8:40], line)
	copy(r[40:44], line[max(0, len(line)-4):])
	copy(r[44:76], user)
	binary.NativeEndian.PutUint32(r[recordTime:], uint32(at))
	return r
}

// stageLedgers are records of a machine that has VOs lab and physics.
func stageLedgers(t *testing.T) ledgers {
	t.Helper()
	dir := t.TempDir()
	l := ledgers{own: filepath.Join(dir, "own"), sessions: filepath.Join(dir, "sessions"),
		machine: []string{filepath.Join(dir, "utmp"), filepath.Join(dir, "wtmp")},
		accountOf: func(uid uint32) (xos.Account, bool) {
			a, ok := map[uint32]xos.Account{2000000001: {User: "alice", VO: "physics"}, 2000000002: {User: "bob", VO: "lab"}}[uid]
			return a, ok
		}}
	for _, d := range []string{"own/physics.sessions", "own/lab.sessions", "sessions"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func write(t *testing.T, path string, parts ...record) {
	t.Helper()
	var data []byte
	for _, p := range parts {
		data = append(data, p...)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// listed gives a file's records: kind, line by its id, user.
func listed(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range recordsIn(data) {
		fmt.Fprintf(&b, "%d %s %s\n", r.kind(), strings.TrimRight(string(r.id()), "\x00"), r.user())
	}
	return b.String()
}

// TestUtmp: the machine's utmp has who is logged in, of all VOs and of none, and
// what is over displaces nobody.
func TestUtmp(t *testing.T) {
	l := stageLedgers(t)
	me, gone := os.Getpid(), 1<<22-1
	machine, own := l.machine[0], filepath.Join(l.own, "physics.utmp")
	write(t, own, loginRecord(userProcess, me, "pts/2", "alice@physics", 20), loginRecord(userProcess, gone, "pts/3", "killed@physics", 20))
	if err := l.tellMachine("*"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(machine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a utmp is made where none is kept: %v", err)
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"in", func() {
			write(t, machine, loginRecord(2, 0, "~", "reboot", 1), loginRecord(userProcess, me, "pts/1", "local", 10))
		},
			"2 ~ reboot\n7 ts/1 local\n7 ts/2 alice@physics\n"},
		{"again", func() {}, "2 ~ reboot\n7 ts/1 local\n7 ts/2 alice@physics\n"},
		{"out", func() { write(t, own, loginRecord(deadProcess, me, "pts/2", "", 30)) }, "2 ~ reboot\n7 ts/1 local\n8 ts/2 \n"},
		{"another there", func() {
			write(t, machine, loginRecord(userProcess, me, "pts/2", "local", 40))
		}, "7 ts/2 local\n"},
		{"another VO's there", func() {
			write(t, filepath.Join(l.own, "lab.utmp"), loginRecord(userProcess, me, "pts/2", "bob@lab", 50))
		}, "7 ts/2 bob@lab\n"},
		{"torn", func() { write(t, own, loginRecord(userProcess, me, "pts/2", "alice@physics", 60)[:recordSize-1]) }, "7 ts/2 bob@lab\n"},
	} {
		step.do()
		if err := l.tellMachine("*"); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, listed(t, machine)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
}

// TestWtmp: each login of a VO is added to the machine's wtmp once.
func TestWtmp(t *testing.T) {
	l := stageLedgers(t)
	machine, own := l.machine[1], filepath.Join(l.own, "physics.wtmp")
	one, two := loginRecord(userProcess, 1, "pts/1", "alice@physics", 1), loginRecord(deadProcess, 1, "pts/1", "", 2)
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"none is kept", func() { write(t, own, one) }, ""},
		{"in", func() { write(t, machine, loginRecord(userProcess, 1, "pts/9", "local", 1)) }, "7 ts/9 local\n7 ts/1 alice@physics\n"},
		{"again", func() {}, "7 ts/9 local\n7 ts/1 alice@physics\n"},
		{"torn", func() { write(t, own, one, two[:100]) }, "7 ts/9 local\n7 ts/1 alice@physics\n"},
		{"whole", func() { write(t, own, one, two) }, "7 ts/9 local\n7 ts/1 alice@physics\n8 ts/1 \n"},
		{"rotated", func() { write(t, machine) }, ""},
		{"made anew", func() { write(t, own, two) }, "8 ts/1 \n"},
	} {
		step.do()
		if err := l.tellMachine("physics.wtmp"); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.name == "none is kept" {
			if _, err := os.Stat(machine); err == nil {
				t.Error("one is made")
			}
		} else if diff := cmp.Diff(step.want, listed(t, machine)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
}

// TestWtmpIsRotated: a VO's wtmp, which is in memory, does not grow for ever, and
// no record is lost or doubled by that.
func TestWtmpIsRotated(t *testing.T) {
	l := stageLedgers(t)
	machine, own := l.machine[1], filepath.Join(l.own, "physics.wtmp")
	write(t, machine)
	n := maxWtmp/recordSize + 10
	one := loginRecord(userProcess, 1, "pts/1", "alice@physics", 1)
	write(t, own, slices.Repeat([]record{one}, n)...)
	for range 2 {
		if err := l.tellMachine("physics.wtmp"); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(own); err != nil || st.Size() != 0 {
		t.Errorf("it has %d bytes (%v)", st.Size(), err)
	}
	write(t, own, one)
	if err := l.tellMachine("physics.wtmp"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(machine); err != nil || st.Size() != int64((n+1)*recordSize) {
		t.Errorf("the machine's has %d bytes, want %d (%v)", st.Size(), (n+1)*recordSize, err)
	}
	// One that is being added to, here by half a record, stays and goes on.
	many := slices.Repeat([]record{one}, n)
	write(t, machine)
	write(t, own, append(many, one[:50])...)
	for range 2 {
		if err := l.tellMachine("physics.wtmp"); err != nil {
			t.Fatal(err)
		}
	}
	write(t, own, append(many, one)...)
	if err := l.tellMachine("physics.wtmp"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(machine); err != nil || st.Size() != int64(n*recordSize) { // the first was there before
		t.Errorf("the machine's has %d bytes, want %d (%v)", st.Size(), n*recordSize, err)
	}
}

// TestWtmpIsToldOnce: whoever adds a VO's logins dies before it has noted that, or
// anywhere while it writes; its successor has each once in the machine's wtmp.
func TestWtmpIsToldOnce(t *testing.T) {
	var mine []record
	for i := range int64(4) {
		mine = append(mine, loginRecord(userProcess, 1, "pts/1", "alice@physics", i))
	}
	local := loginRecord(userProcess, 1, "pts/9", "local", 1)
	whole := func(parts ...record) string { return string(slices.Concat(parts...)) }
	for _, others := range []bool{false, true} {
		for cut := 0; cut <= 2*recordSize; cut += 64 {
			l := stageLedgers(t)
			machine, own := l.machine[1], filepath.Join(l.own, "physics.wtmp")
			tell := func() error { return l.tellMachine("physics.wtmp") }
			write(t, machine, local)
			write(t, own, mine[0])
			if err := tell(); err != nil {
				t.Fatal(err)
			}
			write(t, own, mine[:3]...)
			if err := os.Mkdir(own+".at.new", 0o700); err != nil { // so that it is not noted
				t.Fatal(err)
			}
			if err := tell(); err == nil {
				t.Fatal("this test is about what is not noted")
			}
			if err := os.Remove(own + ".at.new"); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(machine, int64(2*recordSize+cut)); err != nil {
				t.Fatal(err)
			}
			want := whole(append([]record{local}, mine...)...)
			if others && cut%recordSize == 0 { // they write whole records meanwhile
				data, err := os.ReadFile(machine)
				if err != nil {
					t.Fatal(err)
				}
				write(t, machine, data, local)
				want = whole(append([]record{data, local}, mine[1+cut/recordSize:]...)...)
			}
			write(t, own, mine...)
			for range 3 {
				if err := tell(); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(machine)
			if err != nil || string(got) != want {
				t.Errorf("after %d bytes, others wrote %v:\n%s", cut, others, listed(t, machine))
			}
			if _, err := os.Stat(own + ".doing"); err == nil {
				t.Error("what was done is left")
			}
		}
	}
}

// TestSessionsOfAVO: a VO's users see its users' sessions, nobody else's, and
// what they are to see of them.
func TestSessionsOfAVO(t *testing.T) {
	l := stageLedgers(t)
	begun := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.follow(ctx, func(err error) { begun <- err }) }()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		temp := filepath.Join(l.sessions, ".#"+name)
		if err := os.WriteFile(temp, []byte("# This is private data. Do not parse.\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, filepath.Join(l.sessions, name)); err != nil {
			t.Fatal(err)
		}
	}
	put("1", "UID=2000000001\nUSER=alice@physics\nACTIVE=1\nFIFO=/run/secret\nREMOTE_HOST=far\nTTY=\"x\nUID=2000000002\n\"\n")
	put("2", "UID=1000\nUSER=local\n")
	put("3", "UID=0\nUSER=root\n")
	put("4", "DESKTOP=\"\nUID=2000000002\nUSER=bob@lab\"\nUID=1000\n")
	put("last", "UID=2000000002\nUSER=bob@lab\nACTIVE=1\n")
	tree := func() map[string]string {
		m := map[string]string{}
		filepath.WalkDir(l.own, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				data, _ := os.ReadFile(path)
				m[strings.TrimPrefix(path, l.own+"/")] = string(data)
			}
			return nil
		})
		return m
	}
	becomes := func(name string, want map[string]string) {
		t.Helper()
		var diff string
		for range 500 {
			if diff = cmp.Diff(want, tree()); diff == "" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: %s", name, diff)
	}
	alice := "UID=2000000001\nUSER=alice@physics\nACTIVE=1\nREMOTE_HOST=far\n"
	becomes("begun", map[string]string{"physics.sessions/1": alice, "lab.sessions/last": "UID=2000000002\nUSER=bob@lab\nACTIVE=1\n"})
	put("last", "UID=2000000002\nUSER=bob@lab\nACTIVE=0\n")
	if err := os.Remove(filepath.Join(l.sessions, "1")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"lab.sessions/last": "UID=2000000002\nUSER=bob@lab\nACTIVE=0\n"}
	becomes("changed", want)
	cancel()
	if err := <-done; err == nil {
		t.Error("it ended by itself")
	}
	// What ended meanwhile is gone with the next start.
	if err := os.WriteFile(filepath.Join(l.own, "physics.sessions/77"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.tellAll(); err != nil {
		t.Fatal(err)
	}
	becomes("anew", want)
}

// TestRecordsGoOn: where nothing can be followed it is tried again, and nothing
// else ends for that.
func TestRecordsGoOn(t *testing.T) {
	l := stageLedgers(t)
	l.own = filepath.Join(l.machine[0], "no directory")
	write(t, l.machine[0])
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := keepRecords(ctx, slog.New(slog.DiscardHandler), l, time.Millisecond); err != nil {
		t.Error(err)
	}
}
