package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// sustained is how many people, each for the first time, a machine lets in and out
// in a second, 20 at once, while it clears away those who left. As publish it is
// in this process's machine: the session service and the modules are the real ones,
// the rest of sshd, the mounts, the guard and the core are not.
func sustained(ctx context.Context, _ *stage) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "github.com/xtreemos/xos/session/service",
		"-run=^TestRootLogins$", "-count=3", "-v", "-args", "-people=600")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	f, err := loginsFigure(string(out))
	return []figure{f}, err
}

// loginsFigure reads the lines "figure" of TestRootLogins.
func loginsFigure(out string) (figure, error) {
	var columns [5][]float64
	for line := range strings.Lines(out) {
		_, values, ok := strings.Cut(line, ": figure ")
		if !ok {
			continue
		}
		fields := strings.Fields(values)
		if len(fields) != len(columns) {
			return figure{}, fmt.Errorf("%q are not %d numbers", values, len(columns))
		}
		for i, field := range fields {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil || v <= 0 {
				return figure{}, fmt.Errorf("%q is no figure", field)
			}
			columns[i] = append(columns[i], v)
		}
	}
	if len(columns[0]) == 0 {
		return figure{}, errors.New("no figures")
	}
	rate, ours, theirs := columns[0], median(columns[1]), median(columns[2])
	return newFigure("logins_per_s", "1/s", rate, fmt.Sprintf(
		"of distinct users, 20 at once; each takes %v ms of processor time in service and core and %v in sshd's part: two processors with nothing else to do have it for %.0f a second; until the session is open half take %v ms, 1%% more than %v",
		short(ours), short(theirs), 2000/(ours+theirs), short(median(columns[3])), short(slices.Max(columns[4])))), nil
}
