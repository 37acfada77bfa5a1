package guard_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
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
		how, err := g.Freeze(context.Background(), uid, on)
		if err != nil {
			t.Fatal(err)
		}
		return how
	}
	for _, again := range []bool{false, true} {
		if how := freeze(true); !strings.Contains(how, "slice") || !strings.Contains(how, "1 processes") {
			t.Errorf("frozen by %q (again: %v)", how, again)
		}
		wait("the slice is frozen", frozen)
		wait("what is elsewhere is stopped", func() bool { return state(outside) == "T" })
	}
	if state(inside) == "T" || state(other) == "T" || state(ofJob) == "T" {
		t.Errorf("states: in the slice %s, another's %s, a job's %s", state(inside), state(other), state(ofJob))
	}
	// What begins meanwhile is caught when it is looked after again.
	late := start(uid, "")
	freeze(true)
	wait("late comers are stopped", func() bool { return state(late) == "T" })

	g.Close()
	g = open() // another xos-node
	freeze(false)
	wait("all goes on", func() bool { return !frozen() && state(outside) == "S" && state(late) == "S" })
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
	if err := g.KillUser(ctx, uid); err != nil {
		t.Fatal(err)
	}
	freeze(false)
	if frozen() {
		t.Error("her slice stays frozen for her next login")
	}
	if _, err := g.Freeze(ctx, 0, true); err == nil {
		t.Error("root was frozen")
	}
}
