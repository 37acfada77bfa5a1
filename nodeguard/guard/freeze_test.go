package guard_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/test/need"
)

// TestRootFreeze stops all that a user runs, in her slice and elsewhere, and
// resumes just that, also after a restart; what is frozen can be killed.
func TestRootFreeze(t *testing.T) {
	need.Root(t)
	root := ""
	for _, r := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(r, "cgroup.procs")); err == nil {
			root = r
		}
	}
	if root == "" {
		need.Missing(t, "cgroup version 2", "boot with systemd.unified_cgroup_hierarchy=1")
	}
	uid := session.FirstID + 200_000 + uint32(os.Getpid())%10_000
	ids := session.IDs{UID: uid, First: 2013265920, Last: 2013265920 + 65535}
	// A root of our own, in which there is a slice as logind makes it.
	own := filepath.Join(root, fmt.Sprintf("xos-freeze-%d", os.Getpid()))
	slice := filepath.Join(own, "user.slice", fmt.Sprintf("user-%d.slice", uid))
	if err := os.MkdirAll(filepath.Join(slice, "session-1.scope"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		os.WriteFile(filepath.Join(own, "cgroup.kill"), []byte("1"), 0)
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			for _, pattern := range []string{"/*/*/*", "/*/*", "/*", ""} {
				dirs, _ := filepath.Glob(own + pattern)
				for _, d := range dirs {
					syscall.Rmdir(d)
				}
			}
			if _, err := os.Stat(own); err != nil {
				return
			}
		}
	}()
	run := t.TempDir()
	open := func() *guard.Guard {
		g, err := guard.New(guard.Config{CgroupRoot: own, Subtree: "xos", PinDir: filepath.Join("/sys/fs/bpf", filepath.Base(own)), Run: run, Scratch: []string{}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	defer os.RemoveAll(filepath.Join("/sys/fs/bpf", filepath.Base(own)))
	g := open()
	defer func() { g.Close() }()

	start := func(as uint32, cgroup string) int {
		cmd := exec.Command("sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as, Gid: as}}
		if cgroup != "" {
			dir, err := os.Open(cgroup)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	job := filepath.Join(own, "xos", "vo-physics", "job-1")
	if err := os.MkdirAll(job, 0o755); err != nil {
		t.Fatal(err)
	}
	// As newuidmap makes one: its root is she, the others are of her range. On its
	// host a container has these numbers.
	contained := func(as int) int {
		cmd := exec.Command("sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, Credential: &syscall.Credential{Uid: uint32(as), Gid: uint32(as)},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: 1}, {ContainerID: 1, HostID: int(ids.First), Size: 65535}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: 1}, {ContainerID: 1, HostID: int(ids.First), Size: 65535}}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	inContainer, notHers := contained(33), start(ids.Last+1, "")
	headless := headless(t, uid)
	inside, outside, other, ofJob := start(uid, filepath.Join(slice, "session-1.scope")), start(uid, ""), start(uid+1, ""), start(uid, job)
	own2 := start(uid, "")
	syscall.Kill(own2, syscall.SIGSTOP) // she did that herself

	state := func(pid int) string {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(data), ") ")
		return strings.SplitN(rest, " ", 2)[0]
	}
	frozen := func() bool {
		data, _ := os.ReadFile(filepath.Join(slice, "cgroup.events"))
		return strings.Contains(string(data), "frozen 1")
	}
	wait := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s (states %s %s %s)", what, state(inside), state(outside), state(own2))
			}
		}
	}
	wait("she stopped it", func() bool { return state(own2) == "T" })
	freeze := func(on bool) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		how, err := g.Freeze(ctx, ids, on)
		if err != nil {
			t.Fatal(err)
		}
		return how
	}
	for _, again := range []bool{false, true} {
		if how := freeze(true); !strings.Contains(how, "slice") || !strings.Contains(how, "3 processes") {
			t.Errorf("frozen by %q (again: %v)", how, again)
		}
		wait("the slice is frozen", frozen)
		wait("what is elsewhere is stopped", func() bool {
			return state(outside) == "T" && state(inContainer) == "T" && stoppedThreads(headless)
		})
	}
	if state(notHers) == "T" || state(inside) == "T" || state(other) == "T" || state(ofJob) == "T" {
		t.Errorf("states: in the slice %s, another's %s, a job's %s", state(inside), state(other), state(ofJob))
	}
	// What begins meanwhile is caught when it is looked after again.
	late := start(uid, "")
	freeze(true)
	wait("late comers are stopped", func() bool { return state(late) == "T" })

	g.Close()
	g = open() // another xos-node
	freeze(false)
	wait("all goes on", func() bool {
		return !frozen() && state(outside) == "S" && state(late) == "S" && state(inContainer) == "S" && !stoppedThreads(headless)
	})
	if state(own2) != "T" {
		t.Errorf("what she had stopped herself is %s", state(own2))
	}
	if how := freeze(false); !strings.Contains(how, "slice") {
		t.Errorf("thawed twice: %q", how)
	}

	freeze(true)
	wait("frozen", frozen)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.KillUser(ctx, ids); err != nil {
		t.Fatal(err)
	}
	wait("the container is ended with the rest", func() bool {
		return strings.Contains("ZX", state(inContainer)) && strings.Contains("ZX", state(outside))
	})
	freeze(false)
	if frozen() {
		t.Error("her slice stays frozen for her next login")
	}
	if _, err := g.Freeze(ctx, session.IDs{}, true); err == nil {
		t.Error("root was frozen")
	}
}

// headless starts a process that has ended its first thread.
func headless(t *testing.T, uid uint32) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "actor", "headless", fmt.Sprint(uid), "-")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func init() {
	if len(os.Args) > 2 && os.Args[2] == "headless" {
		runtime.LockOSThread() // so that main is on the first thread
	}
}

func goHeadless(uid string) int {
	id, err := strconv.Atoi(uid)
	if err == nil {
		err = syscall.Setresuid(id, id, id)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go time.Sleep(time.Hour)
	fmt.Println("x")
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // of this thread
	return 1
}

// stoppedThreads reports whether all of a process's threads, but the first, stand.
func stoppedThreads(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	n := 0
	for _, path := range stats {
		data, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(data), ") ")
		if strings.HasPrefix(rest, "T") {
			n++
		}
	}
	return n > 0 && n >= len(stats)-1
}
