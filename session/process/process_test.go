package process_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/test/need"
)

func TestIdentity(t *testing.T) {
	before, err := process.Now()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	after, _ := process.Now()
	if id.Start < before || id.Start > after {
		t.Errorf("start %d is not between %d and %d", id.Start, before, after)
	}
	f, err := id.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if process.Ended(f) {
		t.Error("a running process is said to have ended")
	}
	other := process.ID{PID: id.PID, Start: id.Start + 1}
	if _, err := other.Open(); !xos.Is(err, xos.NotFound) {
		t.Errorf("another start time opened: %v", err)
	}
	if err := other.Kill(); err != nil || process.Ended(f) {
		t.Errorf("killing a former holder of the pid: %v, ended %v", err, process.Ended(f))
	}
	if err := id.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if !process.Ended(f) {
		t.Error("a killed process is said to run")
	}
	if _, err := process.Of(id.PID); !xos.Is(err, xos.NotFound) {
		t.Errorf("a dead process has an identity: %v", err)
	}
	if err := id.Kill(); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
}

func TestBoot(t *testing.T) {
	if b, err := process.Boot(); err != nil || len(b) != 36 {
		t.Errorf("boot id %q, %v", b, err)
	}
	if _, err := process.Of(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestWait(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if yes, err := new(process.Looks).Running(t.Context(), session.IDs{UID: uint32(os.Getuid())}); err != nil || !yes {
		t.Errorf("this uid runs nothing: %v, %v", yes, err)
	}
	if yes, err := new(process.Looks).Running(t.Context(), session.IDs{UID: 2147483001}); err != nil || yes {
		t.Errorf("an unused uid runs something: %v, %v", yes, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error, 1)
	go func() { got <- id.Wait(ctx) }()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
	go func() { got <- id.Wait(context.Background()) }()
	cmd.Process.Kill()
	if err := <-got; err != nil {
		t.Errorf("wait for the end: %v", err)
	}
	cmd.Wait()
	if err := id.Wait(context.Background()); err != nil {
		t.Errorf("wait for what has ended: %v", err)
	}
}

// TestRootIDs: processes of a uid and of a range are found and ended, and no others.
func TestRootIDs(t *testing.T) {
	need.Root(t)
	const first = 2147400000
	run := func(uid uint32) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "trap '' TERM HUP; while :; do sleep 60 & wait; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ids := session.IDs{UID: first + 1000, First: first, Last: first + 99}
	if yes, err := new(process.Looks).Running(t.Context(), ids); err != nil || yes {
		t.Errorf("nothing runs: %v, %v", yes, err)
	}
	if err := new(process.Looks).Kill(ctx, ids); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	beside, hers, in, last := run(first+100), run(ids.UID), run(first), run(first+99)
	defer beside.Wait()
	defer beside.Process.Kill()
	all, err := process.Take()
	if err != nil || len(all.Of(ids)) < 3 || !slices.Contains(all.Of(ids), in.Process.Pid) || slices.Contains(all.Of(ids), beside.Process.Pid) {
		t.Errorf("three run, not %d: %v, %v", beside.Process.Pid, all.Of(ids), err)
	}
	if err := new(process.Looks).Kill(ctx, ids); err != nil {
		t.Errorf("three are killed: %v", err)
	}
	for _, cmd := range []*exec.Cmd{hers, in, last} {
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("ended with %v", err)
		}
	}
	if yes, err := new(process.Looks).Running(t.Context(), session.IDs{UID: first + 100}); err != nil || !yes {
		t.Errorf("the one beside was killed: %v", err)
	}
	for _, bad := range []session.IDs{{UID: 0}, {UID: first, First: 1, Last: 5}} {
		if err := new(process.Looks).Kill(ctx, bad); !xos.Is(err, xos.Invalid) {
			t.Errorf("killing %v: %v", bad, err)
		}
	}
}

// TestRootFirstThreadEnded: a process that has ended its first thread looks dead
// and is not.
func TestRootFirstThreadEnded(t *testing.T) {
	need.Root(t)
	ids := session.IDs{UID: 2147400500}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "XOS_TEST_HEADLESS="+strconv.FormatUint(uint64(ids.UID), 10))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	defer func() { cmd.Process.Kill() }()
	io.ReadFull(out, make([]byte, 1))
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		data, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status")
		if strings.Contains(string(data), "State:\tZ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("its first thread does not end: %s", data)
		}
	}
	if yes, err := new(process.Looks).Running(t.Context(), ids); err != nil || !yes {
		t.Errorf("it runs: %v, %v", yes, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := new(process.Looks).Kill(ctx, ids); err != nil {
		t.Error(err)
	}
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("it was not killed")
	}
	if yes, err := new(process.Looks).Running(t.Context(), ids); err != nil || yes {
		t.Errorf("it is dead: %v, %v", yes, err)
	}
}

func init() {
	if os.Getenv("XOS_TEST_HEADLESS") != "" {
		runtime.LockOSThread() // so that main is on the first thread
	}
}

// TestMain lets the test binary play a process without its first thread.
func TestMain(m *testing.M) {
	if how := os.Getenv("XOS_TEST_BLIND"); how != "" {
		if err := process.Blind(how); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	uid, err := strconv.Atoi(os.Getenv("XOS_TEST_HEADLESS"))
	if err != nil {
		os.Exit(m.Run())
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		panic(err)
	}
	go time.Sleep(time.Hour)
	os.Stdout.WriteString("x")
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // of this thread
}
