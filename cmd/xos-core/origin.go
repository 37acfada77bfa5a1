package main

import (
	"context"
	"net/netip"
	"strconv"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
)

// originOf says for whom a refusal counts: for an account that showed a valid
// certificate, else for whence the call came. An IPv6 host has a /64 to choose
// addresses from, and any a port.
func originOf(ctx context.Context, r audit.Record) audit.Origin {
	p := rpc.PeerFrom(ctx)
	if p.Unix {
		return audit.Origin{Name: "uid " + strconv.FormatUint(uint64(p.UID), 10), Known: true}
	}
	if _, err := xos.ParseAccount(r.Actor); err == nil {
		return audit.Origin{Name: r.Actor, Known: true}
	}
	at, err := netip.ParseAddrPort(p.Address)
	if err != nil {
		return audit.Origin{}
	}
	host := at.Addr().Unmap().WithZone("")
	if host.Is6() {
		return audit.Origin{Name: netip.PrefixFrom(host, 64).Masked().String()}
	}
	return audit.Origin{Name: host.String()}
}
