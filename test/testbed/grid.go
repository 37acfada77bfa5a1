package testbed

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config says which grid to boot.
type Config struct {
	// Name tells grids on one host apart: lower-case letters and digits, at
	// most 16. Starting a grid removes what an earlier one of that name left.
	Name string
	// Suite is the release the nodes run; default Chosen().
	Suite Suite
	// Nodes are the host names, in the order of their addresses.
	Nodes []string
	// Detached grids outlive this process; others belong to it, and the next
	// Start of their name may clear them away once it is gone.
	Detached bool
	// Dir holds the nodes' writable layers; default /var/lib/xtreemos-testbed.
	Dir string
	// BootTimeout bounds the boot of all nodes; default 3 minutes, for hosts
	// with two busy cores.
	BootTimeout time.Duration
	// Log receives progress; nil discards it.
	Log *slog.Logger
	// Progress receives debootstrap's and apt's own output; nil discards it.
	Progress io.Writer
}

var (
	gridName = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)
	nodeName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

func (c *Config) complete() error {
	if !gridName.MatchString(c.Name) {
		return fmt.Errorf("testbed: %q is no grid name", c.Name)
	}
	if len(c.Nodes) == 0 || len(c.Nodes) > 100 {
		return fmt.Errorf("testbed: a grid has 1 to 100 nodes, not %d", len(c.Nodes))
	}
	seen := map[string]bool{}
	for _, name := range c.Nodes {
		if !nodeName.MatchString(name) || seen[name] {
			return fmt.Errorf("testbed: %q is no node name, or is there twice", name)
		}
		seen[name] = true
	}
	if c.Suite == "" {
		c.Suite = Chosen()
	}
	if c.Dir == "" {
		c.Dir = "/var/lib/xtreemos-testbed"
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = 3 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Grid is a set of running nodes. It may be used from several goroutines.
type Grid struct {
	Nodes []*Node

	cfg    Config
	net    network
	dir    string
	cgroup string
	stop   sync.Mutex
}

// Start boots a grid and returns when every node's systemd has finished its
// start, or with nothing left behind when one has not.
func Start(ctx context.Context, cfg Config) (*Grid, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("testbed: starting a grid needs root")
	}
	base, err := cfg.Suite.Base(ctx, cfg.Log, cfg.Progress)
	if err != nil {
		return nil, err
	}
	unlock, err := lockGrid(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer unlock()

	grid := newGrid(cfg)
	if owner, ok := grid.liveOwner(); ok {
		return nil, fmt.Errorf("testbed: grid %s is in use by process %d", cfg.Name, owner)
	}
	if err := grid.clear(ctx); err != nil {
		return nil, fmt.Errorf("clearing away an earlier grid %s: %w", cfg.Name, err)
	}
	if err := grid.boot(ctx, base); err != nil {
		// The caller's context may be what ended the boot.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if clearErr := grid.clear(cleanup); clearErr != nil {
			cfg.Log.Error("clearing away a grid that did not start", "error", clearErr)
		}
		return nil, err
	}
	return grid, nil
}

func newGrid(cfg Config) *Grid {
	grid := &Grid{cfg: cfg, net: network{cfg.Name}, dir: filepath.Join(cfg.Dir, cfg.Name)}
	for i, name := range cfg.Nodes {
		grid.Nodes = append(grid.Nodes, &Node{
			Name: name,
			Addr: fmt.Sprintf("%s%d", subnet, firstHost+i),
			grid: grid,
			dir:  filepath.Join(grid.dir, name),
		})
	}
	return grid
}

func (g *Grid) boot(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.BootTimeout)
	defer cancel()
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	if err := g.writeState(); err != nil {
		return err
	}
	var err error
	if g.cgroup, err = makeCgroup(g.cfg.Name); err != nil {
		return err
	}
	if err := g.net.make(ctx, g.Nodes); err != nil {
		return err
	}
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range g.Nodes {
		group.Go(func() error {
			if err := node.boot(ctx, base); err != nil {
				return fmt.Errorf("booting %s: %w\n%s", node.Name, err, node.consoleTail())
			}
			g.cfg.Log.Info("node is up", "node", node.Name, "address", node.Addr,
				"seconds", int(time.Since(began).Seconds()))
			return nil
		})
	}
	return group.Wait()
}

// Node gives a node by name. Asking for one that is not in the Config is a
// mistake in the caller and panics.
func (g *Grid) Node(name string) *Node {
	for _, node := range g.Nodes {
		if node.Name == name {
			return node
		}
	}
	panic(fmt.Sprintf("testbed: grid %s has no node %q", g.cfg.Name, name))
}

// Stop ends every process of the grid at once, as a power cut would, and
// removes everything it had. It may be called twice.
func (g *Grid) Stop(ctx context.Context) error {
	g.stop.Lock()
	defer g.stop.Unlock()
	unlock, err := lockGrid(ctx, g.cfg)
	if err != nil {
		return err
	}
	defer unlock()
	return g.clear(ctx)
}

// Stop removes the grid of that name, whoever started it, running or not.
// dir is Config.Dir, "" the default.
func Stop(ctx context.Context, name, dir string) error {
	cfg := Config{Name: name, Nodes: []string{"any"}, Dir: dir}
	if err := cfg.complete(); err != nil {
		return err
	}
	return newGrid(cfg).Stop(ctx)
}

// clear needs nothing but the grid's name to find what is left of it.
func (g *Grid) clear(ctx context.Context) error {
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	if err := killCgroup(ctx, filepath.Join(root, subtree, g.cfg.Name)); err != nil {
		return err
	}
	removeLegacyCgroups(g.cfg.Name)
	// The last grid takes the common cgroup along; others keep it busy.
	_ = unix.Rmdir(filepath.Join(root, subtree))
	for _, node := range g.Nodes {
		node.reap()
	}
	if err := g.net.remove(ctx); err != nil {
		return err
	}
	return os.RemoveAll(g.dir)
}
