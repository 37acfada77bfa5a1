package testbed

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// The grid's subnet exists inside its own namespaces only, so the same numbers
// serve every grid and cannot meet the host's.
const (
	subnet = "10.88.0."
	prefix = "/24"
	// firstHost leaves low numbers to whoever wants to add a gateway by hand.
	firstHost = 10
)

// network is one switch and one namespace a node, all named after the grid.
type network struct {
	grid string
}

func (n network) switchNS() string             { return "xos-" + n.grid }
func (n network) nodeNS(node string) string    { return "xos-" + n.grid + "." + node }
func (n network) path(namespace string) string { return "/run/netns/" + namespace }

// make builds the switch and gives each node a cable and its address.
func (n network) make(ctx context.Context, nodes []*Node) error {
	hub := n.switchNS()
	script := []string{
		"netns add " + hub,
		"-n " + hub + " link add br0 type bridge",
		"-n " + hub + " link set br0 up",
	}
	for i, node := range nodes {
		ns := n.nodeNS(node.Name)
		port := fmt.Sprintf("port%d", i)
		script = append(script,
			"netns add "+ns,
			fmt.Sprintf("-n %s link add %s type veth peer name eth0 netns %s", hub, port, ns),
			fmt.Sprintf("-n %s link set %s master br0 up", hub, port),
			fmt.Sprintf("-n %s addr add %s%s dev eth0", ns, node.Addr, prefix),
			fmt.Sprintf("-n %s link set eth0 up", ns),
			fmt.Sprintf("-n %s link set lo up", ns),
		)
	}
	for _, line := range script {
		if err := ip(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes all namespaces of the grid; the interfaces go with them once
// no process is left inside.
func (n network) remove(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("ip netns list: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if fields[0] == n.switchNS() || strings.HasPrefix(fields[0], n.switchNS()+".") {
			if err := ip(ctx, "netns", "del", fields[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

func ip(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "ip", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
