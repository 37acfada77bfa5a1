package nssxos_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	nssxos "github.com/xtreemos/xos/nss_xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/need"
)

// published is what a step makes of the snapshot of physics: the number that
// Alice has, and how many other people there are, from u0 on.
type published struct {
	alice, people int
	step          func(p *wire.Publisher, to published) error
}

func (s published) all(p *wire.Publisher) error {
	return p.Publish("physics", func() (wire.Whole, error) { return alone(s.alice, s.people).Whole(), nil })
}

func publishAll(p *wire.Publisher, to published) error { return to.all(p) }

func changeAlice(p *wire.Publisher, to published) error {
	_, err := p.Change("physics", "alice@physics", func() (*wire.SnapshotUser, error) { return &alone(to.alice, 0).Users[0], nil })
	return err
}

// nobody is the state of a VO that is not served.
var nobody = published{alice: -1}

// life is what a publisher does in these tests: it has bases and none, large
// heads and small ones, and comes to know and forgets people.
var life = []published{
	{0, 600, publishAll},
	{1, 600, changeAlice},
	{1, 599, func(p *wire.Publisher, _ published) error {
		_, err := p.Change("physics", "u599@physics", func() (*wire.SnapshotUser, error) { return nil, nil })
		return err
	}},
	{2, 601, publishAll},
	{3, 601, changeAlice},
	{4, 20, publishAll},
	{5, 20, changeAlice},
	{6, 600, publishAll},
	{6, 600, func(p *wire.Publisher, _ published) error { return p.Retain(map[xos.VOName]bool{"physics": true}) }},
	{-1, 0, func(p *wire.Publisher, _ published) error { return p.Retain(nil) }},
}

// TestRootDeath: a publisher that dies at whatever system call leaves what it
// had published last, or next: readers find that and nothing else, in Go and in
// C, though it may have given its file up. The next one leaves no litter.
func TestRootDeath(t *testing.T) {
	need.Root(t)
	if dir := os.Getenv("XOS_TEST_DIES_IN"); dir != "" {
		live(t, dir)
		return
	}
	need.Command(t, "strace")
	deaths := 0
	for _, call := range []string{"openat", "fchown", "fchmod", "write", "pwrite64", "close", "renameat", "unlinkat"} {
		for n := 1; dies(t, call, n); n++ {
			deaths++
		}
	}
	t.Logf("it died %d times", deaths)
	if deaths < 10*len(life) {
		t.Error("which is less often than it does something")
	}
}

// dies lets a publisher die at the n-th such system call of a thread, and says
// whether it came to that.
func dies(t *testing.T, call string, n int) bool {
	t.Helper()
	at := fmt.Sprintf("%s %d", call, n)
	dir, err := os.MkdirTemp("/dev/shm", "death") // in memory, as /run is
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	defer os.Remove(dir + ".steps")
	if err := os.WriteFile(dir+".steps", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "strace", "-f", "-o", "/dev/null", "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), os.Args[0], "-test.run=^TestRootDeath$")
	c.Env = append(os.Environ(), "XOS_TEST_DIES_IN="+dir)
	out, err := c.CombinedOutput()
	if err != nil && (c.ProcessState == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("%s: %v\n%s", at, err, out)
	}
	steps, err2 := os.ReadFile(dir + ".steps")
	if err2 != nil {
		t.Fatal(err2)
	}
	before, after := nobody, nobody
	if len(steps) > 0 {
		before = life[len(steps)-1]
	}
	if len(steps) < len(life) {
		after = life[len(steps)]
	}
	if found := describe(dir); found != before.String() && found != after.String() {
		t.Errorf("%s, after %d steps: %s", at, len(steps), found)
	}
	next(t, at, dir)
	return err != nil && !t.Failed()
}

// live publishes, on one thread so that its system calls are in an order, and
// writes down each step that is done.
func live(t *testing.T, dir string) {
	runtime.LockOSThread()
	done, err := os.Create(dir + ".steps")
	if err != nil {
		t.Fatal(err)
	}
	p := wire.NewPublisher(dir, time.Now)
	for _, s := range life {
		if err := s.step(p, s); err != nil {
			t.Fatal(err)
		}
		if _, err := done.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
}

// String is what readers find of it; see describe.
func (s published) String() string {
	if s.alice < 0 {
		return "nothing"
	}
	text := fmt.Sprintf("alice %d", s.alice)
	for _, i := range edges {
		if i < s.people {
			text += fmt.Sprintf(" u%d", i)
		}
	}
	return text
}

var edges = []int{0, 19, 20, 598, 599, 600}

// describe says what readers find, or in what they differ.
func describe(dir string) string {
	var inGo, inC []string
	at := nssxos.Place{Socket: filepath.Join(dir, "nobody"), Snapshots: dir}
	f, err := wire.OpenSnapshot(dir, "physics")
	if err == nil {
		defer f.Close()
	} else if !xos.Is(err, xos.NotFound) {
		return err.Error()
	}
	find := func(name string, as func(home string) string) {
		if pw, s, _ := at.PasswdByName(name, 4096); s == nssxos.Success {
			inC = append(inC, as(pw.Dir))
		}
		if f == nil {
			return
		}
		if r, err := f.Named(name); err == nil {
			inGo = append(inGo, as(r.User.Dir))
		} else if !xos.Is(err, xos.NotFound) {
			inGo = append(inGo, err.Error())
		}
	}
	find("alice@physics", func(home string) string { return "alice " + strings.TrimPrefix(home, "/home/") })
	for _, i := range edges {
		find(fmt.Sprintf("u%d@physics", i), func(string) string { return fmt.Sprintf("u%d", i) })
	}
	switch {
	case strings.Join(inGo, " ") != strings.Join(inC, " "):
		return fmt.Sprintf("in Go %q, in C %q", inGo, inC)
	case f == nil:
		return "nothing"
	}
	return strings.Join(inGo, " ")
}

// next publishes as the successor of one that died does.
func next(t *testing.T, at, dir string) {
	t.Helper()
	p, to := wire.NewPublisher(dir, time.Now), published{alice: 100, people: 600}
	if err := to.all(p); err != nil {
		t.Fatal(at, err)
	}
	if err := p.Retain(map[xos.VOName]bool{"physics": true}); err != nil {
		t.Fatal(at, err)
	}
	if found := describe(dir); found != to.String() {
		t.Errorf("%s, the next: %s", at, found)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("%s, the next has %v, %v", at, files, err)
	}
}
