package guard_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/test/need"
)

// stage is a guard over a cgroup of the test's own.
type stage struct {
	*guard.Guard
	dir string // the cgroup
	bin string // the test binary, where every uid can run it
	cfg guard.Config
}

func newStage(t *testing.T) stage {
	t.Helper()
	return newStageOf(t, "net")
}

// newStageOf has the network programs see a part of the stage's cgroup, "" for
// all, jobs' cgroups too.
func newStageOf(t *testing.T, seen string) stage {
	t.Helper()
	need.Root(t)
	root := ""
	for _, c := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(c, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			root = c
			break
		}
	}
	if root == "" {
		need.Missing(t, "cgroup version 2", "none is mounted")
	}
	name := fmt.Sprintf("xos-test-%d", os.Getpid())
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pins := pins(t)
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			for _, sub := range []string{"vo-physics/job-j1", "vo-physics", "vo-chemistry/job-j1", "vo-chemistry", "outside", "net", ""} {
				os.Remove(filepath.Join(dir, sub))
			}
			if _, err := os.Stat(dir); os.IsNotExist(err) {
				return
			}
		}
		t.Errorf("cgroup %s is still there", dir)
	})
	inNet := filepath.Join(name, "net")
	moveInto(t, root, inNet)
	run, scratch := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		for _, at := range []string{filepath.Join(run, "ns/physics.4"), filepath.Join(run, "ns")} {
			unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	cfg := guard.Config{CgroupRoot: root, Subtree: name, NetworkCgroup: filepath.Join(name, seen), PinDir: pins, Run: run, Scratch: []string{scratch}}
	g, err := guard.New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return stage{g, filepath.Join(dir, "net"), bin, cfg}
}

// moveInto makes a cgroup and puts this process into it until the test's end,
// so that the network programs see its probe.
func moveInto(t *testing.T, root, name string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	home := ""
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			home = path
		}
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(root, to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := move(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := move(home); err != nil {
			t.Error(err)
		}
	})
}

// command is the actor as uid in the stage's cgroup.
func (s stage) command(t *testing.T, uid uint32, args ...string) *exec.Cmd {
	t.Helper()
	fd, err := unix.Open(s.dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	cmd := exec.Command(s.bin, append([]string{"actor"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uid, Gid: uid},
		UseCgroupFD: true, CgroupFD: fd,
	}
	return cmd
}

// listen starts a listener and gives its address.
func (s stage) listen(t *testing.T, uid uint32, network, address string) string {
	t.Helper()
	return s.listens(t, uid, "listen", network, address)
}

// listens starts an actor that prints the address at which it listens.
func (s stage) listens(t *testing.T, uid uint32, args ...string) string {
	t.Helper()
	cmd := s.command(t, uid, args...)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	b := make([]byte, 100)
	n, err := out.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimSpace(string(b[:n]))
	if _, _, err := net.SplitHostPort(at); err != nil {
		t.Fatalf("listener of uid %d said %q", uid, at)
	}
	return at
}

const (
	alice = session.FirstID + 77
	bob   = session.FirstID + 78
	carol = session.FirstID + 79
	dave  = session.FirstID + 81
	mal   = session.FirstID + 80 // a grid uid without a VO
	local = 12345
)

func (s stage) people(t *testing.T) {
	t.Helper()
	for uid, account := range map[uint32]xos.Account{
		alice: {User: "alice", VO: "physics"}, bob: {User: "bob", VO: "physics"}, carol: {User: "carol", VO: "chemistry"},
		dave: {User: "dave", VO: "biology"},
	} {
		if err := s.Login(context.Background(), account, uid); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRootNetworkKeepsVOsApart(t *testing.T) {
	s := newStage(t)
	if level, features := s.Level(); level != nodeguard.LevelC {
		t.Fatalf("level %s: %+v", level, features)
	}
	s.people(t)
	for _, tc := range []struct{ network, address, dial string }{
		{"tcp4", "127.0.0.1:0", "tcp4"},
		{"tcp4", "0.0.0.0:0", "tcp4"},
		{"tcp6", "[::1]:0", "tcp6"},
		{"tcp", "[::]:0", "tcp4"},
		{"tcp4", "127.0.0.1:0", "fastopen"},
		{"udp4", "127.0.0.1:0", "udp4"},
		{"udp6", "[::1]:0", "udp6"},
	} {
		at := s.listen(t, alice, tc.network, tc.address)
		_, port, _ := net.SplitHostPort(at)
		host := "127.0.0.1"
		if tc.dial[3] == '6' {
			host = "::1"
		}
		at = net.JoinHostPort(host, port)
		for who, allowed := range map[uint32]bool{alice: true, bob: true, carol: false, mal: false, local: true} {
			out, err := s.command(t, who, "connect", tc.dial, at).Output()
			if (err == nil) != allowed {
				t.Errorf("%s %s, uid %d: %s (want allowed %t)", tc.network, tc.address, who, strings.TrimSpace(string(out)), allowed)
			}
			if !allowed && !strings.Contains(string(out), "not permitted") {
				t.Errorf("%s %s, uid %d: refused with %s", tc.network, tc.address, who, out)
			}
		}
	}
	// Multipath TCP would make sockets that no program labels.
	if out, err := s.command(t, alice, "socket", strconv.Itoa(unix.IPPROTO_MPTCP), "-").Output(); !strings.Contains(string(out), "not permitted") {
		t.Errorf("multipath TCP: %s %v", out, err)
	}
	// A service of the machine, outside all VOs, is there for everyone.
	at := s.listen(t, local, "tcp4", "127.0.0.1:0")
	if out, err := s.command(t, carol, "connect", "tcp4", at).Output(); err != nil {
		t.Errorf("to a local service: %s", out)
	}
}

func TestRootRulesOutliveTheGuard(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	s.Close()
	if out, err := s.command(t, carol, "connect", "tcp4", at).Output(); err == nil {
		t.Errorf("without the guard: %s", out)
	}
	if out, err := s.command(t, bob, "connect", "tcp4", at).Output(); err != nil {
		t.Errorf("without the guard, within the VO: %s", out)
	}
}

// TestRootRelease: a namespace with a process in it stays; an empty one goes,
// and takes with it what somebody left there.
func TestRootRelease(t *testing.T) {
	s := newStage(t)
	enter := func() int {
		t.Helper()
		fd, err := s.SessionNamespace(t.Context(), "physics")
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	fd := enter()
	inside := exec.Command("nsenter", "--mount=/proc/self/fd/3", "sh", "-c", "echo left >/dev/shm/left; echo ready; exec sleep 60")
	inside.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "ns")}
	out, err := inside.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	inside.ExtraFiles[0].Close()
	defer func() { inside.Process.Kill(); inside.Wait() }()
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	leftAfterRelease := func() bool {
		t.Helper()
		if err := s.Release(); err != nil {
			t.Fatal(err)
		}
		look := exec.Command("nsenter", "--mount=/proc/self/fd/3", "test", "-e", "/dev/shm/left")
		look.ExtraFiles = []*os.File{os.NewFile(uintptr(enter()), "ns")}
		defer look.ExtraFiles[0].Close()
		return look.Run() == nil
	}
	if !leftAfterRelease() {
		t.Error("a namespace in use was let go")
	}
	inside.Process.Kill()
	inside.Wait()
	if leftAfterRelease() {
		t.Error("an empty namespace stayed, with what was left in it")
	}
	if pins, _ := filepath.Glob(filepath.Join(s.cfg.Run, "ns/*")); len(pins) != 1 {
		t.Errorf("pinned: %q", pins)
	}
}

// TestRootSelfTest: every measure fires; and one whose programs are taken away
// is found out.
func TestRootSelfTest(t *testing.T) {
	s := newStage(t)
	if fd, err := s.SessionNamespace(t.Context(), "physics"); err != nil {
		t.Fatal(err)
	} else {
		unix.Close(fd)
	}
	failed := func() (names []string) {
		for _, f := range s.Test() {
			if !f.Have {
				names = append(names, f.Name+": "+f.Why)
			}
		}
		return names
	}
	if bad := failed(); len(bad) > 0 || len(s.Test()) != 5 {
		t.Errorf("of %d measures, these do not hold: %q", len(s.Test()), bad)
	}
	moveInto(t, s.cfg.CgroupRoot, filepath.Base(filepath.Dir(s.dir))+"/outside")
	if bad := failed(); len(bad) != 2 || !strings.HasPrefix(bad[0], "network: ") || !strings.HasPrefix(bad[1], "devices: ") {
		t.Errorf("outside the programs' cgroup: %q", bad)
	}
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRootJobCgroupEndsAll(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	account := xos.Account{User: "alice", VO: "physics"}
	path, err := s.JobCgroup(ctx, account, "j1")
	if err != nil {
		t.Fatal(err)
	}
	if want := "/" + filepath.Base(filepath.Dir(s.dir)) + "/vo-physics/job-j1"; path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	cmd := exec.Command("sh", "-c", "sleep 60 & sleep 60 & wait")
	fd, err := unix.Open(filepath.Join(filepath.Dir(filepath.Dir(s.dir)), path), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	if err := s.RemoveJob(ctx, account, "j1"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveJob(ctx, account, "j1"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	for _, bad := range []xos.JobID{"", "../x", ".x", "a/b"} {
		if _, err := s.JobCgroup(ctx, account, bad); !xos.Is(err, xos.Invalid) {
			t.Errorf("job %q: %v", bad, err)
		}
	}
}

func TestRootKillUser(t *testing.T) {
	s := newStage(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.Command("sh", "-c", "trap '' TERM HUP; while :; do sleep 60 & wait; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: mal, Gid: mal}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := s.KillUser(ctx, session.IDs{UID: mal}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended with %v", err)
	}
	if err := s.KillUser(ctx, session.IDs{}); !xos.Is(err, xos.Invalid) {
		t.Errorf("killing root's: %v", err)
	}
}
