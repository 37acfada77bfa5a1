package shadow_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/shadow"
)

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestUncatchableSignalsAreSeen(t *testing.T) {
	cmd := sleeper(t)
	p, err := shadow.Open(cmd.Process.Pid, uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	states := make(chan shadow.State, 8)
	done := make(chan struct{})
	failed := false
	go func() {
		defer close(done)
		p.Watch(ctx, func(s shadow.State) error {
			if s == shadow.Stopped && !failed {
				failed = true
				return errors.New("try again")
			}
			states <- s
			return nil
		})
	}()
	for _, step := range []struct {
		sig  syscall.Signal
		want shadow.State
	}{{syscall.SIGSTOP, shadow.Stopped}, {syscall.SIGCONT, shadow.Running}, {syscall.SIGKILL, shadow.Gone}} {
		if err := cmd.Process.Signal(step.sig); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-states:
			if s != step.want {
				t.Errorf("after %v: %v, want %v", step.sig, s, step.want)
			}
		case <-ctx.Done():
			t.Fatalf("%v was not seen", step.sig)
		}
	}
	<-done // a zombie is gone, though nobody has waited for it
	if !failed {
		t.Error("the stop was not told twice")
	}
	cmd.Wait()
	if p.State() != shadow.Gone {
		t.Error("still there")
	}
	if _, err := shadow.Reopen(p.ID); !xos.Is(err, xos.NotFound) {
		t.Errorf("reopened: %v", err)
	}
}

func TestOpen(t *testing.T) {
	cmd := sleeper(t)
	me := uint32(os.Getuid())
	if _, err := shadow.Open(cmd.Process.Pid, me+1); !xos.Is(err, xos.Permission) {
		t.Errorf("another's: %v", err)
	}
	if _, err := shadow.Open(0, me); !xos.Is(err, xos.Invalid) {
		t.Errorf("no pid: %v", err)
	}
	if _, err := shadow.Open(1<<22, me); !xos.Is(err, xos.NotFound) {
		t.Errorf("no process: %v", err)
	}
	p, err := shadow.Open(cmd.Process.Pid, me)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if p, err = shadow.Reopen(p.ID); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := shadow.Reopen(shadow.ID{PID: cmd.Process.Pid, Start: p.ID.Start - 1}); !xos.Is(err, xos.NotFound) {
		t.Errorf("a pid used anew: %v", err)
	}
}
