package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNotRunning is what Attach returns when there is no such grid, or when one
// of its nodes has died.
var ErrNotRunning = errors.New("testbed: the grid is not running")

// state is what a later process needs to use or to respect a running grid.
type state struct {
	Nodes    []string
	Detached bool
	// Owner and OwnerStart identify the process an undetached grid belongs to:
	// pids come again, start times with them do not.
	Owner      int
	OwnerStart string
	Label      string
}

func (g *Grid) statePath() string { return filepath.Join(g.dir, "state.json") }

func (g *Grid) writeState() error {
	return g.saveState(state{
		Nodes:      g.cfg.Nodes,
		Detached:   g.cfg.Detached,
		Owner:      os.Getpid(),
		OwnerStart: StartTime(os.Getpid()),
	})
}

func (g *Grid) saveState(s state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temp := g.statePath() + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, g.statePath())
}

func (g *Grid) readState() (state, error) {
	var s state
	data, err := os.ReadFile(g.statePath())
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

// Label is a note kept with a grid for whoever attaches to it later: which
// packages it runs, say.
func (g *Grid) Label() string {
	s, _ := g.readState()
	return s.Label
}

// SetLabel replaces the note.
func (g *Grid) SetLabel(label string) error {
	s, err := g.readState()
	if err != nil {
		return err
	}
	s.Label = label
	return g.saveState(s)
}

// Attach finds a running grid again, by Config.Name and Config.Dir; the nodes
// are those it was started with.
func Attach(ctx context.Context, cfg Config) (*Grid, error) {
	cfg.Nodes = []string{"any"}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s, err := newGrid(cfg).readState()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	cfg.Nodes, cfg.Detached = s.Nodes, s.Detached
	grid := newGrid(cfg)
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	grid.cgroup = filepath.Join(root, subtree, cfg.Name)
	for _, node := range grid.Nodes {
		if err := node.find(); err != nil {
			return nil, fmt.Errorf("%w: %s has no init", ErrNotRunning, node.Name)
		}
		if _, err := node.Output(ctx, "true"); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
	}
	return grid, nil
}

// liveOwner tells whether another living process holds this grid.
func (g *Grid) liveOwner() (int, bool) {
	s, err := g.readState()
	if err != nil || s.Detached || s.Owner == os.Getpid() {
		return 0, false
	}
	return s.Owner, s.OwnerStart != "" && StartTime(s.Owner) == s.OwnerStart
}

// StartTime is field 22 of /proc/PID/stat, "" for a process that is gone.
func StartTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command name, field 2, may hold spaces and parentheses.
	_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

func lockGrid(ctx context.Context, cfg Config) (func(), error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	return Lock(ctx, filepath.Join(cfg.Dir, "."+cfg.Name+".lock"))
}
