package guard

import (
	"context"

	"github.com/xtreemos/xos/session"
)

// KillUser implements nodeguard.Guard.
func (g *Guard) KillUser(ctx context.Context, ids session.IDs) error { return g.looks.Kill(ctx, ids) }
