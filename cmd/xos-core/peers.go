package main

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos/vom/credential"
)

// peers are the core's open connections, of its API and of its file system's
// metadata.
type peers struct{ api, files *credential.Connections }

func watch(v *credential.Verifier) peers { return peers{v.Connections(), v.RunningConnections()} }

func (p peers) recheck() int { return p.api.Recheck() + p.files.Recheck() }

func (p peers) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.api.Run(ctx) })
	group.Go(func() error { return p.files.Run(ctx) })
	return group.Wait()
}
