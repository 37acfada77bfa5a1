package process_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
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
	if yes, err := process.Running(uint32(os.Getuid())); err != nil || !yes {
		t.Errorf("this uid runs nothing: %v, %v", yes, err)
	}
	if yes, err := process.Running(2147483001); err != nil || yes {
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

// TestRootSpan: processes of a range of uids are found and ended, and no others.
func TestRootSpan(t *testing.T) {
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
	span := process.Span{First: first, Last: first + 99}
	if yes, err := span.Running(); err != nil || yes {
		t.Errorf("nothing runs: %v, %v", yes, err)
	}
	if killed, err := span.Kill(ctx); err != nil || killed {
		t.Errorf("nothing was killed: %v, %v", killed, err)
	}
	beside, in, last := run(first+100), run(first), run(first+99)
	defer beside.Wait()
	defer beside.Process.Kill()
	if yes, err := span.Running(); err != nil || !yes {
		t.Errorf("two run: %v, %v", yes, err)
	}
	if killed, err := span.Kill(ctx); err != nil || !killed {
		t.Errorf("two were killed: %v, %v", killed, err)
	}
	for _, cmd := range []*exec.Cmd{in, last} {
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("ended with %v", err)
		}
	}
	if yes, err := (process.Span{First: first + 100, Last: first + 100}).Running(); err != nil || !yes {
		t.Errorf("the one beside was killed: %v", err)
	}
	if _, err := (process.Span{First: 0, Last: 5}).Kill(ctx); !xos.Is(err, xos.Invalid) {
		t.Errorf("killing root's: %v", err)
	}
}
