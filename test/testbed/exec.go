package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// execCgroup holds the processes that come from outside, so that the node's
// systemd does not take them for parts of a unit of its own.
const execCgroup = "testbed-exec"

// environment is what commands see, like a root login of the node.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash",
	"LANG=C.UTF-8", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive",
}

// Command prepares a program to run as root in all of the node's namespaces,
// in /root, with a small environment. When ctx ends, the whole process group
// is killed. Its standard streams are the caller's to set.
func (n *Node) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"--target", strconv.Itoa(n.init),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/root", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
	cmd.Env = environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// start starts a prepared command inside the node's cgroup, from where it ends
// with the grid.
func (n *Node) start(cmd *exec.Cmd) error {
	dir := filepath.Join(n.cgroup(), "payload", execCgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer group.Close()
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(group.Fd())
	return cmd.Start()
}

// Run runs a program to its end. The error of a program that failed holds what
// it wrote to standard error and wraps *exec.ExitError.
func (n *Node) Run(ctx context.Context, argv ...string) error {
	_, err := n.Output(ctx, argv...)
	return err
}

// Output runs a program and returns its standard output, also when it failed.
func (n *Node) Output(ctx context.Context, argv ...string) (string, error) {
	return n.Input(ctx, nil, argv...)
}

// Input is Output with something on the program's standard input; nil is an
// empty one.
func (n *Node) Input(ctx context.Context, stdin io.Reader, argv ...string) (string, error) {
	cmd := n.Command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s", n.Name, strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

// As is the command line that runs a shell command as a local user of the
// node whose group has his name, at his home and in a login shell of his own, but
// without a login session: that costs a systemd of his own, and seconds where the
// processor is emulated.
func As(user, command string) []string {
	if user == "" || user == "root" {
		return []string{"/bin/bash", "-lc", command}
	}
	return []string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", "--reset-env", "/bin/bash", "-lc", "cd\n" + command}
}

// Start starts a program and returns at once; the caller calls Wait on it.
// Set the streams of the command from Command before.
func (n *Node) Start(cmd *exec.Cmd) error { return n.start(cmd) }

// Push writes content to a file of the node, making directories on the way.
func (n *Node) Push(ctx context.Context, content io.Reader, path string, mode os.FileMode) error {
	script := `set -e; mkdir -p "$(dirname "$1")"; cat >"$1.push"; chmod "$2" "$1.push"; mv "$1.push" "$1"`
	_, err := n.Input(ctx, content, "/bin/sh", "-c", script, "push", path, strconv.FormatUint(uint64(mode.Perm()), 8))
	return err
}

// PushFile copies a file of the host into the node.
func (n *Node) PushFile(ctx context.Context, hostPath, path string) error {
	file, err := os.Open(hostPath)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return n.Push(ctx, file, path, info.Mode())
}

// ReadFile reads a file of the node.
func (n *Node) ReadFile(ctx context.Context, path string) (string, error) {
	return n.Output(ctx, "cat", "--", path)
}
