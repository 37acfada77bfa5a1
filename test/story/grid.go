// Package story brings up a grid of Debian machines with the packages of
// this tree installed, and plays what its users do there. "make demo" shows
// it to people; the end-to-end tests check it.
package story

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/xtreemos/xos/test/testbed"
)

// Nodes are the grid's machines: a core with storage, two nodes, and a client
// that belongs to nobody's grid but trusts this one.
var Nodes = []string{"core", "node1", "node2", "client"}

// People are the local users of the client, who sit in front of it.
var People = []string{"alice", "bob", "carol"}

// Options of a grid.
type Options struct {
	Name string
	// Debs is the directory with the packages.
	Debs string
	// Keep lets the grid run on after this process; a running one of the same
	// release with the same packages is used again.
	Keep bool
	// Out gets what people should see: progress.
	Out io.Writer
	Log *slog.Logger
}

// packages of each machine, by name without "xtreemos-".
var packages = map[string][]string{
	"core":   {"client", "core", "storage"},
	"node1":  {"client", "node"},
	"node2":  {"client", "node"},
	"client": {"client"},
}

// Up boots the grid, installs the packages with apt, and joins the machines.
// fresh is false if a grid that was running already is used again.
func Up(ctx context.Context, o Options) (g *testbed.Grid, fresh bool, err error) {
	label, debs, err := findDebs(o.Debs)
	if err != nil {
		return nil, false, err
	}
	suite := testbed.Chosen()
	label = string(suite) + " " + label
	cfg := testbed.Config{Name: o.Name, Nodes: Nodes, Suite: suite, Detached: o.Keep, Log: o.Log, Progress: o.Out}
	if o.Keep {
		g, err := testbed.Attach(ctx, cfg)
		if err == nil && g.Label() == label {
			fmt.Fprintln(o.Out, "the grid is running already, with these packages")
			return g, false, nil
		}
		if err != nil && !errors.Is(err, testbed.ErrNotRunning) {
			return nil, false, err
		}
	}
	fmt.Fprintf(o.Out, "booting %s\n", strings.Join(Nodes, ", "))
	g, err = testbed.Start(ctx, cfg)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			g.Stop(context.WithoutCancel(ctx))
		}
	}()
	fmt.Fprintln(o.Out, "installing the packages with apt")
	if err := onAll(func(name string) error { return install(ctx, g.Node(name), debs) }); err != nil {
		return nil, false, err
	}
	fmt.Fprintln(o.Out, "xos up on core, then on the others")
	if err := join(ctx, g); err != nil {
		return nil, false, err
	}
	return g, true, g.SetLabel(label)
}

// onAll runs f for every node at once.
func onAll(f func(node string) error) error {
	var work sync.WaitGroup
	errs := make([]error, len(Nodes))
	for i, name := range Nodes {
		work.Go(func() { errs[i] = f(name) })
	}
	work.Wait()
	return errors.Join(errs...)
}

func install(ctx context.Context, n *testbed.Node, debs map[string]string) error {
	var files []string
	for _, p := range packages[n.Name] {
		files = append(files, debs[p])
	}
	if _, err := n.InstallDebs(ctx, files...); err != nil {
		return err
	}
	if n.Name != "client" {
		return nil
	}
	for _, person := range People {
		if err := n.Run(ctx, "useradd", "-m", "-s", "/bin/bash", person); err != nil {
			return err
		}
	}
	return nil
}

// join makes the core a grid and the others its parts.
func join(ctx context.Context, g *testbed.Grid) error {
	if err := g.Node("core").Run(ctx, "xos", "up"); err != nil {
		return err
	}
	token, err := g.Node("core").Output(ctx, "xos", "node", "token", "--uses", "4")
	if err != nil {
		return err
	}
	return onAll(func(name string) error {
		if name == "core" {
			return nil
		}
		return g.Node(name).Run(ctx, "xos", "up", "--join", "core", "--token", strings.TrimSpace(token))
	})
}

// findDebs gives the packages by short name, and a label for this set of them.
func findDebs(dir string) (label string, debs map[string]string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "xtreemos-*.deb"))
	if err != nil {
		return "", nil, err
	}
	sort.Strings(files)
	sum := sha256.New()
	debs = map[string]string{}
	for _, f := range files {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(f), "xtreemos-"), "_")
		debs[name] = f
		data, err := os.Open(f)
		if err != nil {
			return "", nil, err
		}
		_, err = io.Copy(sum, data)
		data.Close()
		if err != nil {
			return "", nil, err
		}
	}
	for _, want := range []string{"client", "core", "node", "storage"} {
		if debs[want] == "" {
			return "", nil, fmt.Errorf("%s has no package xtreemos-%s; run: make debs", dir, want)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), debs, nil
}
