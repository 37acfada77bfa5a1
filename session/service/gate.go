package service

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
)

// caller is the local uid of a call.
func caller(ctx context.Context) (uint32, error) {
	p := rpc.PeerFrom(ctx)
	if !p.Unix || p.UID == ^uint32(0) {
		return 0, xos.Errorf(xos.Permission, "this is for the machine's own users")
	}
	return p.UID, nil
}

// WhoAmI implements SessionHandler.
func (s *Service) WhoAmI(ctx context.Context, _ *connect.Request[xosv1.WhoAmIRequest]) (*connect.Response[xosv1.WhoAmIResponse], error) {
	uid, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.Of(ctx, uid)
	if err != nil {
		return nil, err
	}
	a := &xosv1.Attributes{User: string(l.Identity.User), Vo: string(l.Identity.VO), Home: string(l.Identity.Home)}
	for _, g := range l.Identity.Groups {
		a.Groups = append(a.Groups, string(g))
	}
	for _, r := range l.Identity.Roles {
		a.Roles = append(a.Roles, string(r))
	}
	return connect.NewResponse(&xosv1.WhoAmIResponse{Attributes: a, Uid: uid, Session: string(l.ID), Node: string(s.cfg.Node),
		NotAfter: timestamppb.New(s.ends(l))}), nil
}

// ListSessions implements SessionHandler.
func (s *Service) ListSessions(ctx context.Context, _ *connect.Request[xosv1.ListSessionsRequest]) (*connect.Response[xosv1.ListSessionsResponse], error) {
	uid, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var list []*login
	for _, l := range s.sessions {
		if uid == 0 || l.Mapping.UID == uid {
			list = append(list, l)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b *login) int { return a.Opened.Compare(b.Opened) })
	resp := &xosv1.ListSessionsResponse{}
	for _, l := range list {
		resp.Sessions = append(resp.Sessions, &xosv1.SessionInfo{Id: string(l.ID), Account: l.Identity.Account.String(), Uid: l.Mapping.UID,
			Pid: int32(l.LoginPID), From: l.From, Opened: timestamppb.New(l.Opened), Serial: l.Identity.Serial})
	}
	return connect.NewResponse(resp), nil
}

// NodeStatus implements SessionHandler.
func (s *Service) NodeStatus(ctx context.Context, _ *connect.Request[xosv1.NodeStatusRequest]) (*connect.Response[xosv1.NodeStatusResponse], error) {
	if _, err := caller(ctx); err != nil {
		return nil, err
	}
	level, features := s.Guard.Level()
	b := s.Bundle()
	resp := &xosv1.NodeStatusResponse{Node: string(s.cfg.Node), Level: string(level), CoreReachable: s.Reachable(),
		BundleIssued: timestamppb.New(b.Issued), BundleEpoch: b.Epoch, Jobs: int64(s.Jobs())}
	for _, f := range features {
		text := f.Name + ": yes"
		if !f.Have {
			text = f.Name + ": no, " + f.Why
		}
		resp.Features = append(resp.Features, text)
	}
	last := time.Time{}
	for _, vo := range b.VOs {
		until := b.ServesUntil(vo.Name)
		switch {
		case !s.Policy.Serves(vo.Name):
		case s.Now().After(until):
			resp.Stale = append(resp.Stale, string(vo.Name))
		case until.After(last):
			last = until
		}
	}
	if !last.IsZero() {
		resp.ServesUntil = timestamppb.New(last)
	}
	s.mu.Lock()
	resp.Sessions = int64(len(s.sessions))
	for _, p := range s.people {
		if p.fate == vom.FateFreeze {
			resp.Frozen++
		}
	}
	s.mu.Unlock()
	return connect.NewResponse(resp), nil
}
