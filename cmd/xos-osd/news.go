package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/nats"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/trust"
)

// hurry is how often news are asked for while the bus brings none.
const hurry = 3 * time.Second

// hear has the keeper ask for news as soon as the bus says that there are some,
// or may have lost that word, until ctx ends.
func hear(ctx context.Context, cfg config, keeper *trust.Keeper, log *slog.Logger) error {
	var me vom.Machine
	for joined := false; !joined; {
		var err error
		if me, err = keeper.Machine(); err != nil && !xos.Is(err, xos.Unavailable) {
			return err
		}
		if joined = err == nil; joined {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
	messages, err := nats.Connect(ctx, nats.Config{Servers: []string{cfg.Bus}, Name: string(me.Node) + "/" + string(me.Service), TLS: keeper.CoreTLS(), Log: log})
	if err != nil {
		return err
	}
	defer messages.Close()
	stop, err := messages.Subscribe("xos.bundle", func(context.Context, bus.Message) { keeper.Refresh() })
	if err != nil {
		return err
	}
	defer stop()
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
