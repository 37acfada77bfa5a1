package main

import (
	"context"

	"github.com/xtreemos/xos/session/residue"
)

// search looks for what is left of ids on this machine.
func (c config) search(ctx context.Context, ids []residue.Subject, progress func(files int)) (residue.Report, error) {
	return residue.Search(ctx, residue.Config{Run: c.Run, State: c.State, Homes: c.Homes, Progress: progress}, ids)
}
