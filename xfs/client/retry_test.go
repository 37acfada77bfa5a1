package client_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
)

// flaky is an MRC that can be away.
type flaky struct {
	xfs.MRC
	away  atomic.Bool
	asked atomic.Int64
}

func (f *flaky) answer() error {
	f.asked.Add(1)
	if f.away.Load() {
		return xos.Errorf(xos.Unavailable, "away")
	}
	return nil
}

func (f *flaky) Readlink(context.Context, xfs.Inode) (string, error) { return "there", f.answer() }
func (f *flaky) Statfs(context.Context) (xfs.StatFS, error)          { return xfs.StatFS{}, f.answer() }

// TestOutage: a service is waited for, but its whole outage only once, and its
// return is noticed without anyone asking.
func TestOutage(t *testing.T) {
	mrc := &flaky{}
	const patience = time.Second
	c := client.New(client.Config{Retry: patience, WriteBack: 20 * time.Millisecond}, client.Deps{MRC: mrc, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	ask := func() (time.Duration, error) {
		start := time.Now()
		_, err := c.Readlink(ctx, 1)
		return time.Since(start), err
	}

	mrc.away.Store(true)
	back := time.AfterFunc(patience/4, func() { mrc.away.Store(false) })
	defer back.Stop()
	if took, err := ask(); err != nil || took < patience/4 {
		t.Errorf("a short outage: %v after %v, want it waited out", err, took)
	}

	mrc.away.Store(true)
	if took, err := ask(); !xos.Is(err, xos.Unavailable) || took < patience {
		t.Errorf("a long outage: %v after %v, want to wait %v", err, took, patience)
	}
	for range 20 {
		if took, err := ask(); !xos.Is(err, xos.Unavailable) || took > patience/2 {
			t.Fatalf("in a long outage: %v after %v, want an error at once", err, took)
		}
	}
	mrc.away.Store(false)
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		took, err := ask()
		if err == nil {
			break
		}
		if took > patience/2 || time.Since(start) > 10*time.Second {
			t.Fatalf("after the outage: %v after %v", err, took)
		}
	}

	// A new outage is waited out anew.
	mrc.away.Store(true)
	back = time.AfterFunc(patience/4, func() { mrc.away.Store(false) })
	defer back.Stop()
	if took, err := ask(); err != nil {
		t.Errorf("a second short outage: %v after %v", err, took)
	}
}

// TestOutageOfACredential: what was refused to one credential for long is asked
// again at once with another.
func TestOutageOfACredential(t *testing.T) {
	mrc := &flaky{}
	var shown atomic.Int64
	// No Run: nothing sees in the background that the MRC is back.
	c := client.New(client.Config{Retry: 100 * time.Millisecond}, client.Deps{MRC: mrc, Shown: func() any { return shown.Load() }, Log: slog.New(slog.DiscardHandler)})
	ask := func() error { _, err := c.Readlink(t.Context(), 1); return err }
	mrc.away.Store(true)
	if err := ask(); !xos.Is(err, xos.Unavailable) {
		t.Fatalf("a long outage: %v", err)
	}
	mrc.away.Store(false)
	asked := mrc.asked.Load()
	if err := ask(); !xos.Is(err, xos.Unavailable) || mrc.asked.Load() != asked {
		t.Fatalf("just after it, with the same: %v", err)
	}
	shown.Store(1)
	if err := ask(); err != nil {
		t.Errorf("with another: %v", err)
	}
}
