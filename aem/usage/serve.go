package usage

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
)

// Local serves Usage to this machine's users: root reads the ledger, others
// their own records in the core.
type Local struct {
	xosv1connect.UnimplementedUsageHandler
	Ledger   *Ledger
	Sessions session.Sessions
	// CoreFor is the core, asked as a user; done must be called.
	CoreFor func(ctx context.Context, a xos.Account) (core xosv1connect.UsageClient, done func(), err error)
}

var _ xosv1connect.UsageHandler = Local{}

// page bounds an answer.
const (
	defaultPage = 500
	maxPage     = 1000
)

// ListUsage implements UsageHandler.
func (s Local) ListUsage(ctx context.Context, req *connect.Request[xosv1.ListUsageRequest]) (*connect.Response[xosv1.ListUsageResponse], error) {
	p := rpc.PeerFrom(ctx)
	if !p.Unix {
		return nil, xos.Errorf(xos.Permission, "this is for the machine's own users")
	}
	if p.UID == 0 {
		resp, err := s.Ledger.list(req.Msg)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(resp), nil
	}
	of, err := s.Sessions.Of(ctx, p.UID)
	if err != nil {
		return nil, err
	}
	core, done, err := s.CoreFor(ctx, of.Identity.Account)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := core.ListUsage(ctx, connect.NewRequest(req.Msg))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp.Msg), nil
}

// list gives a page: after is the time, job or stay, and node of the last record of the
// page before.
func (l *Ledger) list(m *xosv1.ListUsageRequest) (*xosv1.ListUsageResponse, error) {
	size := int(m.Limit)
	switch {
	case m.Limit == 0:
		size = defaultPage
	case m.Limit < 0 || m.Limit > maxPage:
		return nil, xos.Errorf(xos.Invalid, "a page of %d records: want 1 to %d", m.Limit, maxPage)
	}
	since, before, err := bounds(m)
	if err != nil {
		return nil, err
	}
	var sums Sums
	err = l.Each(since, before, func(r *xosv1.UsageRecord) bool {
		a, err := xos.ParseAccount(r.Account)
		if err == nil && (m.Vo == "" || string(a.VO) == m.Vo) && (m.User == "" || string(a.User) == m.User) {
			sums.Add(r)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	resp := &xosv1.ListUsageResponse{}
	for _, r := range sums.Records() {
		if m.After != "" && strings.Compare(position(r), m.After) <= 0 {
			continue
		}
		if len(resp.Records) == size {
			resp.After = position(resp.Records[size-1])
			break
		}
		resp.Records = append(resp.Records, r)
	}
	return resp, nil
}

// position is a record's place in the order of Records.
func position(r *xosv1.UsageRecord) string {
	a, _ := xos.ParseAccount(r.Account)
	// A slash sorts after '-' and '.', a NUL before all.
	return strings.Join([]string{string(a.VO), r.Until.AsTime().UTC().Format("2006-01-02T15:04:05.000000000"), ID(r), r.Node}, "\x00")
}

func bounds(m *xosv1.ListUsageRequest) (since, before time.Time, err error) {
	for _, b := range []struct {
		at *timestamppb.Timestamp
		to *time.Time
	}{{m.Since, &since}, {m.Before, &before}} {
		if b.at == nil {
			continue
		}
		if err := b.at.CheckValid(); err != nil {
			return since, before, xos.Errorf(xos.Invalid, "a bound is no time: %v", err)
		}
		*b.to = b.at.AsTime()
	}
	return since, before, nil
}
