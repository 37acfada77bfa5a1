package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// masked units either have no use in a node or would reach through to the
// host, whose /proc/sys and /sys the nodes can write.
var masked = []string{
	"systemd-sysctl.service", "systemd-modules-load.service",
	"systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"systemd-random-seed.service", "systemd-firstboot.service",
	"systemd-networkd-wait-online.service",
	"console-getty.service", "getty.target",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
	"e2scrub_all.timer", "fstrim.timer",
}

// prepare writes the node's layer: what makes it this machine and no other.
// It returns the machine id.
func (n *Node) prepare(ctx context.Context) (string, error) {
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	machine := newMachineID()
	var hosts strings.Builder
	fmt.Fprintf(&hosts, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, other := range n.grid.Nodes {
		fmt.Fprintf(&hosts, "%s %s\n", other.Addr, other.Name)
	}
	files := map[string]string{
		"etc/machine-id":  machine + "\n",
		"etc/hostname":    n.Name + "\n",
		"etc/hosts":       hosts.String(),
		"etc/resolv.conf": "",
		"etc/fstab":       "",
		// No mirror is within reach: apt takes what it is given.
		"etc/apt/sources.list": "",
		// Stores on the overlay are as durable as the host's disk; a journal
		// that is gone with the node is enough.
		"etc/systemd/journald.conf.d/testbed.conf": "[Journal]\nStorage=volatile\n",
	}
	for name, content := range files {
		path := filepath.Join(n.dir, "upper", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	units := filepath.Join(n.dir, "upper/etc/systemd/system")
	if err := os.MkdirAll(units, 0o755); err != nil {
		return "", err
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return "", err
		}
	}
	return machine, n.hostKeys(ctx)
}

// hostKeys gives the node's sshd keys of its own instead of the base's.
func (n *Node) hostKeys(ctx context.Context) error {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		path := filepath.Join(n.dir, "upper/etc/ssh/ssh_host_"+kind+"_key")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err := run(ctx, io.Discard, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@"+n.Name, "-f", path)
		if err != nil {
			return err
		}
	}
	return nil
}
