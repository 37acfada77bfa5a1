package guard

import (
	"context"

	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
)

// KillUser implements nodeguard.Guard.
func (g *Guard) KillUser(ctx context.Context, ids session.IDs) error { return process.Kill(ctx, ids) }
