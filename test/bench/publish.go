package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// publish measures the session service's publishing of snapshots in this
// process's machine, not in a node: all of a VO of which 100,000 users have a uid
// there, and one more user until she is found. It needs the source tree, as
// make bench does.
func publish(ctx context.Context, _ *stage) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "github.com/xtreemos/xos/session/service",
		"-run=^$", "-bench=^BenchmarkRootPublish$", "-benchtime=10x", "-count=5")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	rebuild, change := rounds(string(out), "/rebuild"), rounds(string(out), "/change")
	if len(rebuild) == 0 || len(change) == 0 {
		return nil, fmt.Errorf("no figures in\n%s", out)
	}
	return []figure{
		newFigure("nss_rebuild_100k_ms", "ms", rebuild, "all of a VO, from the account map to the file"),
		newFigure("nss_change_100k_ms", "ms", change, "one user, until a reader finds her"),
	}, nil
}

// rounds are the milliseconds of each line of a Go benchmark that has this in
// its name: NAME, how often, ns, "ns/op".
func rounds(out, name string) []float64 {
	var all []float64
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "ns/op" || !strings.Contains(f[0], name) {
			continue
		}
		if ns, err := strconv.ParseFloat(f[2], 64); err == nil {
			all = append(all, ns/1e6)
		}
	}
	return all
}
