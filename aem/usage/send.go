package usage

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
)

const (
	// tellEvery is how often the core hears what running jobs have used.
	tellEvery = 5 * time.Minute
	// batch is how many records are sent at once, the core's bound.
	batch = 100
	// patience is how long one call may take.
	patience = 10 * time.Second
)

// Run tells the core what was used, until ctx ends: final records at once, the
// others now and then. What the core has not acknowledged is sent again,
// also by a successor.
func (l *Ledger) Run(ctx context.Context, core xosv1connect.UsageClient) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	all := true
	const shortest, longest = 250 * time.Millisecond, 30 * time.Second
	for wait := shortest; ; {
		again := make(<-chan time.Time)
		if err := l.tell(ctx, core, all); err != nil && ctx.Err() == nil {
			l.log.Debug("the core was not told what jobs used", "error", err)
			again, wait = time.After(wait), min(2*wait, longest)
		} else {
			all, wait = false, shortest
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			all = true
		case <-again:
		case <-l.news:
		}
	}
}

// tell sends what is unsettled: final records, and the others too if all. One
// that the core refuses keeps none of the others back.
func (l *Ledger) tell(ctx context.Context, core xosv1connect.UsageClient, all bool) error {
	list := slices.DeleteFunc(l.unsettled(), func(r *xosv1.UsageRecord) bool { return !r.Final && !all })
	for part := range slices.Chunk(list, batch) {
		err := l.send(ctx, core, part)
		if err == nil {
			continue
		}
		if xos.Is(err, xos.Unavailable) || ctx.Err() != nil {
			return err
		}
		for i := range part {
			err := l.send(ctx, core, part[i:i+1])
			if xos.Is(err, xos.Unavailable) || ctx.Err() != nil {
				return err
			} else if err != nil { // it is tried again, with those to come
				l.log.Warn("the core does not take what was used", "id", ID(part[i]), "error", err)
			}
		}
	}
	return nil
}

// send sends records, and settles those that will not change.
func (l *Ledger) send(ctx context.Context, core xosv1connect.UsageClient, part []*xosv1.UsageRecord) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := core.PutUsage(ctx, connect.NewRequest(&xosv1.PutUsageRequest{Records: part}))
	if err != nil {
		return err
	}
	for _, r := range part {
		if !r.Final {
			continue
		}
		if r.Job != "" && slices.Contains(resp.Msg.Unwanted, r.Job) {
			l.log.Warn("the core knows nothing of a job that ran here", "job", r.Job, "account", r.Account)
		}
		if err := l.settle(r); err != nil {
			return err
		}
	}
	return nil
}
