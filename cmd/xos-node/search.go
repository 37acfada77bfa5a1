package main

import (
	"context"

	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session/residue"
)

// search looks for what is left of ids on this machine. It finds namespaces by
// their processes, so those that only the guard holds have to go first.
func (c config) search(fence *guard.Guard) func(ctx context.Context, ids []residue.Subject, progress func(files int)) (residue.Report, error) {
	return func(ctx context.Context, ids []residue.Subject, progress func(files int)) (residue.Report, error) {
		if err := fence.Release(); err != nil {
			return residue.Report{}, err
		}
		return residue.Search(ctx, residue.Config{Run: c.Run, State: c.State, Homes: c.Homes, Progress: progress}, ids)
	}
}
