// Xos-testbed boots and handles grids of Debian nodes by hand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/xtreemos/xos/test/testbed"
)

const usage = `usage: xos-testbed [-name GRID] COMMAND
  base                 make the base root all nodes share, and print it
  up NODE...           boot a grid that stays
  down                 end it and remove everything it had
  status               list its nodes
  run NODE COMMAND...  run a program in a node as root
  shell NODE [USER]    open a login shell in a node, on this terminal
  install NODE DEB...  apt install packages in a node
`

func main() {
	name := flag.String("name", "demo", "the grid's name")
	verbose := flag.Bool("v", false, "show debootstrap's and apt's own output")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := testbed.Config{Name: *name, Detached: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if *verbose {
		cfg.Progress = os.Stderr
	}
	if err := command(ctx, cfg, flag.Args()); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Exited() {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "xos-testbed:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, cfg testbed.Config, args []string) error {
	if len(args) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "base" && len(args) == 0:
		dir, err := testbed.Chosen().Base(ctx, cfg.Log, cfg.Progress)
		if err == nil {
			fmt.Println(dir)
		}
		return err
	case verb == "up" && len(args) > 0:
		cfg.Nodes = args
		_, err := testbed.Start(ctx, cfg)
		return err
	case verb == "down" && len(args) == 0:
		return testbed.Stop(ctx, cfg.Name, cfg.Dir)
	}
	grid, err := testbed.Attach(ctx, cfg)
	if err != nil {
		return err
	}
	switch {
	case verb == "status" && len(args) == 0:
		for _, node := range grid.Nodes {
			fmt.Printf("%-10s %s\n", node.Name, node.Addr)
		}
		return nil
	case verb == "run" && len(args) > 1:
		out, err := node(grid, args[0]).Output(ctx, args[1:]...)
		fmt.Print(out)
		return err
	case verb == "shell" && (len(args) == 1 || len(args) == 2):
		argv := []string{"su", "-l"}
		if len(args) == 2 {
			argv = append(argv, args[1])
		}
		return node(grid, args[0]).Interactive(ctx, argv...)
	case verb == "install" && len(args) > 1:
		out, err := node(grid, args[0]).InstallDebs(ctx, args[1:]...)
		fmt.Print(out)
		return err
	}
	flag.Usage()
	os.Exit(2)
	return nil
}

func node(grid *testbed.Grid, name string) *testbed.Node {
	for _, node := range grid.Nodes {
		if node.Name == name {
			return node
		}
	}
	fmt.Fprintf(os.Stderr, "xos-testbed: there is no node %s\n", name)
	os.Exit(1)
	return nil
}
