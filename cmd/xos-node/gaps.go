package main

import (
	"context"
	"time"

	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/vom/trust"
)

// hurry is how often news are asked for while the bus brings none: a removed
// member must be refused within 5 s all the same.
const hurry = 3 * time.Second

// afterGaps asks for news when the bus may have lost some, and again and again
// while it is away.
func afterGaps(ctx context.Context, messages bus.Conn, keeper *trust.Keeper, hurry time.Duration) error {
	tick := time.NewTicker(hurry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-messages.Changed():
			keeper.Refresh()
		case <-tick.C:
			if !messages.Connected() {
				keeper.Refresh()
			}
		}
	}
}
