package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// InstallDebs installs packages of the host in the node with the node's own
// apt, as a user would: apt install ./a.deb ./b.deb. What they depend on must
// be among them or in the base root, for the node reaches no mirror. It
// returns what apt printed.
func (n *Node) InstallDebs(ctx context.Context, debs ...string) (string, error) {
	// apt's own user reads the files, so they lie where it may.
	const dir = "/var/tmp/debs"
	argv := []string{"apt-get", "install", "-y", "-q", "--no-install-recommends", "--allow-downgrades", "--reinstall"}
	for _, deb := range debs {
		target := filepath.Join(dir, filepath.Base(deb))
		if err := n.PushFile(ctx, deb, target); err != nil {
			return "", fmt.Errorf("pushing %s to %s: %w", deb, n.Name, err)
		}
		argv = append(argv, target)
	}
	return n.Output(ctx, argv...)
}

// KillMain sends a unit's main process SIGKILL, as a crash would end it, and
// returns the pid it had inside the node.
func (n *Node) KillMain(ctx context.Context, unit string) (string, error) {
	pid, err := n.Output(ctx, "systemctl", "show", "--value", "--property=MainPID", "--", unit)
	pid = strings.TrimSpace(pid)
	if err != nil {
		return "", err
	}
	if pid == "" || pid == "0" {
		return "", fmt.Errorf("%s: %s has no main process: %w", n.Name, unit, os.ErrProcessDone)
	}
	return pid, n.Run(ctx, "kill", "-KILL", pid)
}
