package apart

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// here is true where this machine is the whole grid: a virtual machine of
// package vm, in which it is called core, node1 and client.
var here = os.Getenv("XOS_HERE") != ""

// node gives a machine of the grid.
func node(name string) story.Machine {
	if here {
		return machineHere{}
	}
	return grid.Node(name)
}

// machineHere runs commands on this machine.
type machineHere struct{}

func (machineHere) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (machineHere) Start(cmd *exec.Cmd) error { return cmd.Start() }

// onThisMachine runs the tests where "xos up" has been said and the people of
// the story are there, or makes them.
func onThisMachine(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if exec.CommandContext(ctx, "id", "guest").Run() != nil {
		if err := settle(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "apart:", err)
			return 1
		}
	}
	return m.Run()
}
