package subidxos_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/session/wire/wiretest"
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

// ask gives what the module answers to each question.
func ask(t *testing.T, c *exec.Cmd, questions ...string) []string {
	t.Helper()
	c.Stdin = strings.NewReader(strings.Join(questions, "\n") + "\n")
	out := strings.Split(output(t, c), "\n")
	if len(out) != len(questions) {
		t.Fatalf("%d answers to %d questions: %q", len(out), len(questions), out)
	}
	return out
}

func TestRootAnswers(t *testing.T) {
	r := room(t)
	new(wiretest.Service).Serve(t, r.Socket())
	physics := []int{wiretest.PhysicsGID}
	questions := []struct {
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
	}
	var texts []string
	for _, q := range questions {
		texts = append(texts, q.ask)
	}
	byRoot := ask(t, r.Command("/run/lib/ask"), texts...)
	byBob := ask(t, r.As(wiretest.BobUID, physics, "/run/lib/ask"), texts...)
	byStranger := ask(t, r.As(54321, nil, "/run/lib/ask"), texts...)
	for i, q := range questions {
		for who, got := range map[string][2]string{"root": {byRoot[i], q.root}, "bob": {byBob[i], q.bob}, "a stranger": {byStranger[i], q.stranger}} {
			if got[0] != got[1] {
				t.Errorf("%s by %s: %q, want %q", q.ask, who, got[0], got[1])
			}
		}
	}
}

// TestRootOverlap: a range that the machine has given to one of its own users as
// well is nobody's of the grid, and neither is any while that cannot be known.
func TestRootOverlap(t *testing.T) {
	r := room(t)
	new(wiretest.Service).Serve(t, r.Socket())
	question := func() string {
		t.Helper()
		return strings.Join(ask(t, r.Command("/run/lib/ask"), fmt.Sprint("has alice@physics uid ", first, " 1"), "list alice@physics gid", "list carol uid"), ", ")
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
			if got := question(); !strings.HasPrefix(got, want+", 0") {
				t.Errorf("%q in %s: %q, want %q", line, file, got, want)
			}
		}
	}
	path := r.Etc(t, "subuid", "")
	r.Etc(t, "subgid", "")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := question(); got != "3 no, 3, 3" {
		t.Errorf("a file that anybody may write: %q", got)
	}
}

// TestRootNoService: without xos-node, or with one that says what it must not,
// grid users have no subordinate ids, and local users have theirs.
func TestRootNoService(t *testing.T) {
	r := room(t)
	question := func(want ...string) {
		t.Helper()
		got := ask(t, r.Command("/run/lib/ask"), fmt.Sprint("has alice@physics uid ", first, " 1"), "list alice@physics uid", "has carol uid 100000 65536")
		if !slices.Contains(want, got[0]+", "+got[1]) || got[2] != "0 yes" {
			t.Errorf("%q, want %q, and a local user's", got, want)
		}
	}
	question("2 no, 2")
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
		t.Log(what)
		question("3 no, 3", "2 no, 2")
		stop()
	}
	// One that hangs.
	release := make(chan struct{})
	stop := wiretest.Listen(t, r.Socket(), func(*net.UnixConn) { <-release })
	began := time.Now()
	if question("2 no, 2"); time.Since(began) > 10*time.Second { // two questions, of 1 s each
		t.Errorf("one that hangs: %v", time.Since(began))
	}
	close(release)
	stop()
}
