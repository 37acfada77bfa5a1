// Command bench boots a grid and measures what its users feel. It prints lines
// "BENCH name value unit", each with a comment on how the value came about;
// progress goes to standard error.
//
//	usage: XOS_DEBS=DIR bench [-json] [-only NAME] [-keep] [-peers]
//
// What needs no grid is measured first, and boots none if nothing else is asked
// for: bench -only nss_.
//
// A ratio compares with the same thing done without XtreemOS on the same
// machine, in rounds that alternate, so that a busy host slows both; it is the
// median of the rounds' ratios. All machines of the grid share one host, its
// processors and its disk: figures that are no ratios say little about others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/xtreemos/xos/test/story"
)

// measurement yields one or more figures, in the order of their names.
type measurement struct {
	names []string
	run   func(context.Context, *stage) ([]figure, error)
}

// alone need no grid, and take their stage for nothing.
var alone = []measurement{
	names,
	{[]string{"nss_rebuild_100k_ms", "nss_change_100k_ms"}, publish},
	{[]string{"logins_per_s"}, sustained},
}

// onGrid are in their order: what must be idle comes before any load.
var onGrid = []measurement{
	idle,
	{[]string{"login_ratio"}, login},
	{[]string{"login_cold_ratio"}, coldLogin},
	{[]string{"submit_to_start_ms"}, submit},
	{[]string{"xfs_seq_write_MBps", "xfs_seq_read_MBps"}, sequential},
	{[]string{"xfs_create_per_s"}, create},
	{[]string{"git_clone_ratio"}, clone},
}

func main() {
	asJSON := flag.Bool("json", false, "print one JSON object a line")
	only := flag.String("only", "", "measure only what begins with this `NAME`")
	keep := flag.Bool("keep", false, "leave the grid running, and use it again if it is")
	peers := flag.Bool("peers", false, "install what names are compared with, in a Debian root of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	show := figure.text
	if *asJSON {
		show = figure.json
	}
	b := bench{only: *only, keep: *keep, peers: *peers, show: func(f figure) error { return show(f, os.Stdout) }}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	only        string
	keep, peers bool
	show        func(figure) error
}

func (b bench) wants(name string) bool { return strings.HasPrefix(name, b.only) }

// chosen are those of the measurements that have what is asked for.
func (b bench) chosen(all []measurement) []measurement {
	return slices.DeleteFunc(slices.Clone(all), func(m measurement) bool {
		return !slices.ContainsFunc(m.names, b.wants)
	})
}

func (b bench) run(ctx context.Context) error {
	alone, onGrid := b.chosen(alone), b.chosen(onGrid)
	if len(alone)+len(onGrid) == 0 {
		return fmt.Errorf("nothing is called %s", b.only)
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Fprintf(os.Stderr, "the host's %d processors had loads of %s", runtime.NumCPU(), load)
	}
	failed := b.measure(ctx, &stage{peers: b.peers}, alone)
	if len(onGrid) > 0 {
		failed = errors.Join(failed, b.bootAndMeasure(ctx, onGrid))
	}
	return failed
}

func (b bench) bootAndMeasure(ctx context.Context, chosen []measurement) (err error) {
	debs := os.Getenv("XOS_DEBS")
	if debs == "" {
		return errors.New("XOS_DEBS must name the directory with the packages; or run: make bench")
	}
	grid, fresh, err := story.Up(ctx, story.Options{Name: "bench", Debs: debs, Keep: b.keep, Out: os.Stderr, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if !b.keep {
		defer func() { err = errors.Join(err, grid.Stop(context.WithoutCancel(ctx))) }()
	}
	s := &stage{Grid: grid}
	defer s.close()
	if err := s.prepare(ctx, fresh); err != nil {
		return err
	}
	return b.measure(ctx, s, chosen)
}

// measure shows the figures; what failed does not keep the others from it.
func (b bench) measure(ctx context.Context, s *stage, chosen []measurement) (failed error) {
	for _, m := range chosen {
		fmt.Fprintf(os.Stderr, "measuring %s\n", m.names[0])
		figures, err := m.run(ctx, s)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.names[0], err))
			continue
		}
		for _, f := range figures {
			if !b.wants(f.Name) {
				continue
			}
			if err := b.show(f); err != nil {
				return errors.Join(failed, err)
			}
		}
	}
	return failed
}
