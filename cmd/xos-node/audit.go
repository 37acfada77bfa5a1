package main

import (
	"cmp"
	"context"
	"strconv"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
)

// originOf says for whom a refusal counts: what was noted with it, else who calls.
func originOf(ctx context.Context, r audit.Record) audit.Origin {
	if r.Origin.Name != "" {
		return r.Origin
	}
	p := rpc.PeerFrom(ctx)
	if p.Unix {
		return audit.Origin{Name: "uid " + strconv.FormatUint(uint64(p.UID), 10), Known: true}
	}
	return audit.Host(cmp.Or(p.Address, "elsewhere"))
}

// ownLog shows this machine's log of decisions to root. Every local user reaches
// the socket, and what the log refuses it writes down: so others are refused
// before, or they could fill the disk.
type ownLog struct{ log xosv1connect.AuditHandler }

func onlyRoot(ctx context.Context) error {
	if p := rpc.PeerFrom(ctx); !p.Unix || p.UID != 0 {
		return xos.Errorf(xos.Permission, "only root may read this machine's audit log").WithHint("run it with sudo")
	}
	return nil
}

// ListAudit implements xosv1connect.AuditHandler.
func (l ownLog) ListAudit(ctx context.Context, req *connect.Request[xosv1.ListAuditRequest]) (*connect.Response[xosv1.ListAuditResponse], error) {
	if err := onlyRoot(ctx); err != nil {
		return nil, err
	}
	return l.log.ListAudit(ctx, req)
}

// VerifyAudit implements xosv1connect.AuditHandler.
func (l ownLog) VerifyAudit(ctx context.Context, req *connect.Request[xosv1.VerifyAuditRequest]) (*connect.Response[xosv1.VerifyAuditResponse], error) {
	if err := onlyRoot(ctx); err != nil {
		return nil, err
	}
	return l.log.VerifyAudit(ctx, req)
}
