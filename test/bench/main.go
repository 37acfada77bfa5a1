// Command bench boots a grid and measures what its users feel. It prints lines
// "BENCH name value unit", each with a comment on how the value came about;
// progress goes to standard error.
//
//	usage: XOS_DEBS=DIR bench [-json] [-only NAME] [-keep]
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
	"syscall"

	"github.com/xtreemos/xos/test/story"
)

// measurement yields one or more figures, in the order of their names.
type measurement struct {
	names []string
	run   func(context.Context, *stage) ([]figure, error)
}

// measurements in their order: what must be idle comes before any load.
var measurements = []measurement{
	idle,
	{[]string{"login_ratio"}, login},
	{[]string{"nss_hit_ratio", "nss_foreign_miss_ns"}, lookup},
	{[]string{"nss_rebuild_100k_ms", "nss_change_100k_ms"}, publish},
	{[]string{"submit_to_start_ms"}, submit},
	{[]string{"xfs_seq_write_MBps", "xfs_seq_read_MBps"}, sequential},
	{[]string{"xfs_create_per_s"}, create},
	{[]string{"git_clone_ratio"}, clone},
}

func main() {
	asJSON := flag.Bool("json", false, "print one JSON object a line")
	only := flag.String("only", "", "measure this `NAME` alone")
	keep := flag.Bool("keep", false, "leave the grid running, and use it again if it is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	show := figure.text
	if *asJSON {
		show = figure.json
	}
	if err := bench(ctx, *only, *keep, func(f figure) error { return show(f, os.Stdout) }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, only string, keep bool, show func(figure) error) (err error) {
	chosen := slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool {
		return only != "" && !slices.Contains(m.names, only)
	})
	if len(chosen) == 0 {
		return fmt.Errorf("nothing is called %s", only)
	}
	debs := os.Getenv("XOS_DEBS")
	if debs == "" {
		return errors.New("XOS_DEBS must name the directory with the packages; or run: make bench")
	}
	grid, fresh, err := story.Up(ctx, story.Options{Name: "bench", Debs: debs, Keep: keep, Out: os.Stderr, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if !keep {
		defer func() { err = errors.Join(err, grid.Stop(context.WithoutCancel(ctx))) }()
	}
	s := &stage{Grid: grid}
	defer s.close()
	if err := s.prepare(ctx, fresh); err != nil {
		return err
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Fprintf(os.Stderr, "the host's %d processors had loads of %s", runtime.NumCPU(), load)
	}
	var failed error
	for _, m := range chosen {
		fmt.Fprintf(os.Stderr, "measuring %s\n", m.names[0])
		figures, err := m.run(ctx, s)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.names[0], err))
			continue
		}
		for _, f := range figures {
			if only != "" && f.Name != only {
				continue
			}
			if err := show(f); err != nil {
				return err
			}
		}
	}
	return failed
}
