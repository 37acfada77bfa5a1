package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Node is one machine of the grid.
type Node struct {
	Name string
	// Addr is its IPv4 address; every node also resolves every other's name.
	Addr string

	grid *Grid
	dir  string
	// base and machine are its root below the node's layer and its machine id.
	base, machine string
	// init is the pid, on the host, of the node's process 1.
	init int
	// supervisor is systemd-nspawn, where this process started it.
	supervisor *exec.Cmd
}

// launch is what becomes the supervisor, in a mount namespace of its own.
// Where the disk cannot hold an overlay's upper layer (a host that is itself a
// container), memory does. Arguments: base, node directory, nspawn's command.
const launch = `set -e
base=$1 dir=$2; shift 2
overlay() {
	mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
}
if ! overlay 2>/dev/null; then
	mkdir "$dir/memory"
	mount -t tmpfs -o mode=0700 tmpfs "$dir/memory"
	cp -a "$dir/upper" "$dir/work" "$dir/memory/"
	dir=$dir/memory
	mkdir "$dir/root"
	overlay
	mount --bind "$dir/root" "${dir%/memory}/root"
fi
exec "$@"
`

// environment of systemd-nspawn: its seccomp filter breaks CRIU, CRIU writes
// below /proc/sys, and the nodes have a pure cgroup2 tree.
var nspawnEnvironment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"SYSTEMD_SECCOMP=0",
	"SYSTEMD_NSPAWN_API_VFS_WRITABLE=1",
	"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
}

func (n *Node) cgroup() string { return filepath.Join(n.grid.cgroup, n.Name) }

func (n *Node) boot(ctx context.Context, base string) error {
	machine, err := n.prepare(ctx)
	if err != nil {
		return err
	}
	n.base, n.machine = base, machine
	return n.power(ctx)
}

// Reboot has the node end as its administrator would, and boots it again.
func (n *Node) Reboot(ctx context.Context) error {
	if n.supervisor == nil {
		return fmt.Errorf("rebooting %s: another process has booted it", n.Name)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "memory")); err == nil {
		return fmt.Errorf("rebooting %s: its disk is in memory: %w", n.Name, errors.ErrUnsupported)
	}
	// The command may be killed by what it does.
	_ = n.Run(ctx, "systemctl", "reboot")
	ended := make(chan struct{})
	go func() { n.reap(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("rebooting %s: it does not end: %w", n.Name, ctx.Err())
	}
	if err := killCgroup(ctx, n.cgroup()); err != nil {
		return err
	}
	return n.power(ctx)
}

// power starts the machine that was prepared, and waits for it.
func (n *Node) power(ctx context.Context) error {
	if err := os.Mkdir(n.cgroup(), 0o755); err != nil {
		return err
	}
	group, err := os.Open(n.cgroup())
	if err != nil {
		return err
	}
	defer group.Close()
	console, err := os.Create(filepath.Join(n.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()

	// Not CommandContext: the node lives until Stop, not as long as its boot.
	cmd := exec.Command("/bin/sh", "-c", launch, "launch", n.base, n.dir,
		"systemd-nspawn", "--quiet", "--directory="+filepath.Join(n.dir, "root"),
		"--machine="+n.grid.cfg.Name+"-"+n.Name, "--hostname="+n.Name, "--uuid="+n.machine,
		"--register=no", "--keep-unit", "--capability=all", "--bind=/dev/fuse",
		"--network-namespace-path="+n.grid.net.path(n.grid.net.nodeNS(n.Name)),
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot")
	cmd.Env = nspawnEnvironment
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:       true,
		Unshareflags: syscall.CLONE_NEWNS,
		UseCgroupFD:  true,
		CgroupFD:     int(group.Fd()),
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.supervisor = cmd
	return n.wait(ctx)
}

// wait polls until the node's systemd says that it has finished starting.
func (n *Node) wait(ctx context.Context) error {
	last := errors.New("its init has not appeared")
	for {
		if n.find() == nil {
			out, err := n.Output(ctx, "systemctl", "is-system-running", "--wait")
			switch strings.TrimSpace(out) {
			case "running":
				return nil
			case "degraded":
				failed, _ := n.Output(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
				n.grid.cfg.Log.Warn("node is up with failed units", "node", n.Name, "units", failed)
				return nil
			}
			last = fmt.Errorf("systemd is %q: %w", strings.TrimSpace(out), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (n *Node) find() error {
	pid, err := initOf(n.cgroup())
	if err == nil {
		n.init = pid
	}
	return err
}

// reap collects the supervisor, which has been killed.
func (n *Node) reap() {
	if n.supervisor != nil {
		_ = n.supervisor.Wait()
		n.supervisor = nil
	}
}

func (n *Node) consoleTail() string {
	file, err := os.Open(filepath.Join(n.dir, "console.log"))
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > 4096 {
		_, _ = file.Seek(-4096, io.SeekEnd)
	}
	data, _ := io.ReadAll(file)
	return string(bytes.TrimSpace(data))
}

func newMachineID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
