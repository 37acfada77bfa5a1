package residue_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/test/need"
)

// TestMain lets the test binary play the process that leaves something: see act.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "leave" {
		os.Exit(act(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// ground is a machine on which things are left.
type ground struct {
	*testing.T
	cfg      residue.Config
	dir      string
	bin      string
	base     uint32
	subjects []residue.Subject
}

func newGround(t *testing.T) *ground {
	need.Root(t)
	g := &ground{T: t, dir: t.TempDir(), base: 2_100_000_000 + rand.Uint32N(40_000_000)}
	for d := g.dir; d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755|os.ModeSticky&fileMode(d))
		if d == os.TempDir() {
			break
		}
	}
	os.Chmod(os.TempDir(), 0o777|os.ModeSticky)
	g.cfg = residue.Config{Run: g.path("run"), State: g.path("state"), Homes: g.path("homes"), Rate: -1}
	for _, d := range []string{"run/sessions", "run/cred", "state/jobs", "homes/vo"} {
		g.mkdir(g.path(d))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	g.bin = g.path("actor")
	if err := os.WriteFile(g.bin, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

func fileMode(path string) os.FileMode {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Mode()
}

func (g *ground) path(name string) string { return filepath.Join(g.dir, name) }

// mkdir makes directories, and removes those it made.
func (g *ground) mkdir(path string) {
	g.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	g.mkdir(filepath.Dir(path))
	if err := os.Mkdir(path, 0o755); err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { os.Remove(path) })
}

// subject gives a fresh id and its name.
func (g *ground) subject() (uint32, string) {
	s := residue.Subject{ID: g.base + uint32(len(g.subjects)), Name: fmt.Sprintf("u%d@vo", g.base%1000000+uint32(len(g.subjects)))}
	g.subjects = append(g.subjects, s)
	return s.ID, s.Name
}

// subordinate gives the subject with this id subordinate ids, and one of them.
func (g *ground) subordinate(id uint32) uint32 {
	s := &g.subjects[id-g.base]
	s.Sub = 1<<30 + (g.base%4096+uint32(len(g.subjects)))*residue.SubIDs
	return s.Sub + 4711
}

func (g *ground) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// file makes a file with an owner, in place of none, and removes it.
func (g *ground) file(path, text string, uid, gid uint32, mode uint32) string {
	g.Helper()
	g.mkdir(filepath.Dir(path))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	g.must(err)
	g.Cleanup(func() { os.Remove(path) })
	_, err = f.WriteString(text)
	g.must(err)
	g.must(f.Chown(int(uid), int(gid)))
	g.must(unix.Fchmod(int(f.Fd()), mode))
	f.Close()
	return path
}

// leave runs an actor that leaves something of an id, says so, and waits.
func (g *ground) leave(attr *syscall.SysProcAttr, args ...string) (said string) {
	g.Helper()
	cmd := exec.Command(g.bin, append([]string{"leave"}, args...)...)
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	g.must(err)
	out, err := cmd.StdoutPipe()
	g.must(err)
	cmd.Stderr = os.Stderr
	g.must(cmd.Start())
	g.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		g.Fatalf("%v left nothing: %v", args, err)
	}
	return strings.TrimSpace(line)
}

// as gives the attributes of a process that has an id in every way.
func as(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// planted is one leftover and how it must be found.
type planted struct {
	name string
	id   uint32
	kind residue.Kind
	at   string // part of Where
	why  string // part of Why
}

func TestRootEachLeftoverIsFound(t *testing.T) {
	g := newGround(t)
	bystander, _ := g.subject()
	g.leave(nil, "wait") // a process of nobody's
	all := g.plantAll()

	began := time.Now()
	r, err := residue.Search(context.Background(), g.cfg, g.subjects)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, l := range r.Looks {
		t.Logf("%-13s seen %7d found %3d blind %v skipped %v", l.Kind, l.Seen, l.Found, l.Blind, l.Skipped)
		if l.Kind == residue.File {
			files = l.Seen
		}
	}
	t.Logf("%d files in %v", files, time.Since(began).Round(time.Millisecond))
	for _, p := range all {
		ok := slices.ContainsFunc(r.Of(p.id), func(f residue.Finding) bool {
			return f.Kind == p.kind && strings.Contains(f.Where, p.at) && strings.Contains(f.Why, p.why)
		})
		if !ok {
			t.Errorf("%s was not found as %s %q %q: %+v", p.name, p.kind, p.at, p.why, r.Of(p.id))
		}
		if r.Clean(p.id) {
			t.Errorf("%s: %d counts as clean", p.name, p.id)
		}
	}
	if len(r.Of(bystander)) > 0 {
		t.Errorf("of an id that left nothing: %+v", r.Of(bystander))
	}
	if !r.Clean(bystander) {
		t.Errorf("nothing is left of %d, but it is not clean: %v", bystander, r.Blind())
	}
	if r.Clean(bystander + 1_000_000) {
		t.Error("an id that was not looked for is clean")
	}
}

func TestRootKeyringsAreCleared(t *testing.T) {
	g := newGround(t)
	id, _ := g.subject()
	g.plantKeyring(id)
	if !ownsKeys(t, id) {
		t.Fatal("the kernel shows no keyring")
	}
	if err := residue.Clear(id); err != nil {
		t.Fatal(err)
	}
	// The kernel collects what was invalidated a little later.
	for deadline := time.Now().Add(10 * time.Second); ownsKeys(t, id); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the keyrings are still there")
		}
	}
	if os.Getuid() != 0 || syscall.Geteuid() != 0 {
		t.Error("this process is not root any more")
	}
	if err := residue.Clear(id); err != nil || ownsKeys(t, id) {
		t.Errorf("clearing nothing made something: %v", err)
	}
}

func TestRootStopsWhenTold(t *testing.T) {
	g := newGround(t)
	g.subject()
	g.cfg.Rate = 1000
	ctx, cancel := context.WithCancel(context.Background())
	g.cfg.Progress = func(n int) { cancel() }
	began := time.Now()
	r, err := residue.Search(ctx, g.cfg, g.subjects)
	if err == nil || r.Clean(g.base) || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestSearchForNobody(t *testing.T) {
	for _, subjects := range [][]residue.Subject{nil, {{ID: 0, Name: "root@vo"}}, {{ID: 999, Name: "x@vo"}}, {{ID: 2_000_000_000}}, {{ID: 2_000_000_000, Name: "x@vo", Sub: 5}}} {
		if _, err := residue.Search(context.Background(), residue.Config{}, subjects); err == nil {
			t.Errorf("searched for %v", subjects)
		}
	}
	if residue.Clear(0) == nil {
		t.Error("root was cleared")
	}
	if (residue.Report{}).Clean(2_000_000_000) {
		t.Error("no search proves nothing")
	}
}

func ownsKeys(t *testing.T, id uint32) bool {
	data, err := os.ReadFile("/proc/key-users")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), decimal(id)+":")
}

// acl encodes an access control list with one named entry.
func acl(tag uint16, id uint32) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag uint16
		id  uint32
	}{{1, ^uint32(0)}, {tag, id}, {4, ^uint32(0)}, {0x10, ^uint32(0)}, {0x20, ^uint32(0)}} {
		if tag == 8 && e.tag == 4 && len(out) == 20 { // groups come after the owning one
			out = append(out[:12], append(entry(4, ^uint32(0)), entry(tag, id)...)...)
			continue
		}
		out = append(out, entry(e.tag, e.id)...)
	}
	return out
}

func entry(tag uint16, id uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, tag), 4), id)
}
