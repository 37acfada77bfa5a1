package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// every is how often all measures are fired.
const every = time.Minute

// Run keeps the labels of logins' cgroups right, fires the measures again and
// again, and writes into the log of decisions what the programs refused,
// until ctx ends. What is in force stays in force without it. accountOf names
// those who logged in before this process came; nil knows none.
func (g *Guard) Run(ctx context.Context, history Recorder, accountOf AccountOf) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.recheck(ctx, every) })
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

// watchSlices labels the cgroups that systemd makes for logins. Until one has
// its label, its processes have that of their uid.
func (g *Guard) watchSlices(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return xos.Errorf(xos.Internal, "watching the cgroups of logins: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	defer events.Close()
	dir := g.labels.slicesDir()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR); errors.Is(err, unix.ENOENT) {
		return nil // no systemd here
	} else if err != nil {
		return xos.Errorf(xos.Internal, "watching %s: %w", dir, err)
	}
	g.relabel() // what came before the watch
	b := make([]byte, 64<<10)
	for {
		n, err := events.Read(b)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return xos.Errorf(xos.Internal, "watching %s: %w", dir, err)
		}
		for rest := b[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			mask, size := binary.NativeEndian.Uint32(rest[4:]), int(binary.NativeEndian.Uint32(rest[12:]))
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], []byte{0})
			rest = rest[unix.SizeofInotifyEvent+size:]
			g.sliceEvent(mask, string(name))
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
