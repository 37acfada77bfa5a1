package main

import (
	"context"
	"strconv"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
)

// originOf says for whom a refusal counts: for an account that showed a valid
// certificate, else for whence the call came.
func originOf(ctx context.Context, r audit.Record) audit.Origin {
	p := rpc.PeerFrom(ctx)
	if p.Unix {
		return audit.Origin{Name: "uid " + strconv.FormatUint(uint64(p.UID), 10), Known: true}
	}
	if _, err := xos.ParseAccount(r.Actor); err == nil {
		return audit.Origin{Name: r.Actor, Known: true}
	}
	return audit.Host(p.Address)
}
