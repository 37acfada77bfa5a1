// Command demo boots the grid, plays the story on it, showing each command with
// its real output, and leaves it running.   usage: demo [-debs DIR] [up|ssh|down]
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
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

const grid = "demo"

func main() {
	debs := flag.String("debs", "dist", "directory with the packages")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch flag.Arg(0) {
	case "", "up":
		err = play(ctx, *debs)
	case "ssh":
		err = enter(ctx)
	case "down":
		err = testbed.Stop(ctx, grid, "")
	default:
		flag.Usage()
		os.Exit(64)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func play(ctx context.Context, debs string) error {
	start := time.Now()
	g, fresh, err := story.Up(ctx, story.Options{Name: grid, Debs: debs, Keep: true, Out: os.Stdout, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	teller := &story.Teller{Grid: g, Out: os.Stdout}
	if fresh {
		for _, step := range story.All() {
			if err := teller.Tell(ctx, step); err != nil {
				return fmt.Errorf("the story went wrong; the grid is left as it is, see with: make demo-ssh\n%w", err)
			}
		}
	} else {
		for _, step := range story.Again() {
			if err := teller.Tell(ctx, step); err != nil {
				return err
			}
		}
	}
	fmt.Printf(`
── The grid is running (%.0f s). To use it:
  make demo-ssh       a shell as alice on the client; then: ssh alice@physics@node1
  make demo-down      end it
`, time.Since(start).Seconds())
	return nil
}

// enter gives a shell on the client.
func enter(ctx context.Context) error {
	g, err := testbed.Attach(ctx, testbed.Config{Name: grid})
	if err != nil {
		return fmt.Errorf("%w: start it with make demo", err)
	}
	return g.Node("client").Interactive(ctx, "su", "-l", "alice")
}
