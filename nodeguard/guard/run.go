package guard

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// every is how often all measures are fired.
const every = time.Minute

// Run keeps the labels of logins' cgroups and the records of logins right, fires
// the measures again and again, and writes into the log of decisions what the
// programs refused,
// until ctx ends. What is in force stays in force without it. accountOf names
// those who logged in before this process came; nil knows none.
func (g *Guard) Run(ctx context.Context, history Recorder, accountOf AccountOf) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.recheck(ctx, every) })
	group.Go(func() error { return keepRecords(ctx, g.log, g.ledgers(accountOf), every) })
	if g.lsm != nil {
		group.Go(func() error { return g.watchSlices(ctx) })
	}
	if g.labels != nil {
		group.Go(func() error { return g.recordDenials(ctx, history, accountOf) })
	}
	return group.Wait()
}

func (g *Guard) recheck(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.check()
		}
	}
}

// watchSlices labels the cgroups that systemd makes for logins, until ctx ends. Until one
// has its label, its processes have that of their uid.
func (g *Guard) watchSlices(ctx context.Context) error {
	err := g.followSlices(ctx)
	if err == nil || ctx.Err() != nil { // the watch ends with ctx, at whatever it is
		return nil
	}
	return xos.Errorf(xos.Internal, "watching the cgroups of logins: %w", err)
}

func (g *Guard) followSlices(ctx context.Context) error {
	watch, err := newWatch(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	if err := watch.add(g.labels.slicesDir(), unix.IN_CREATE|unix.IN_DELETE); errors.Is(err, unix.ENOENT) {
		return nil // no systemd here
	} else if err != nil {
		return err
	}
	g.relabel() // what came before the watch
	for {
		events, err := watch.next()
		if err != nil {
			return err
		}
		for _, e := range events {
			g.sliceEvent(e.mask, e.name)
		}
	}
}

func (g *Guard) sliceEvent(mask uint32, name string) {
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		g.relabel()
	case !strings.HasPrefix(name, "user-") || !strings.HasSuffix(name, ".slice"):
	case mask&unix.IN_DELETE != 0:
		g.labels.gone(name)
	case mask&unix.IN_CREATE != 0:
		if err := g.labels.made(name); err != nil {
			g.log.Warn("a login's cgroup has no label: its processes have that of their uid", "cgroup", name, "error", err)
		}
	}
}

// relabel labels all cgroups that are there.
func (g *Guard) relabel() {
	if err := g.labels.relabel(); err != nil {
		g.log.Warn("not all cgroups could be labelled", "error", err)
	}
}
