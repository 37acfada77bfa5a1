package xvoms

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
)

// concerns gives whom a ban's record in the audit log is about.
func concerns(kind, subject string) xos.Account {
	switch vom.BanKind(kind) {
	case vom.BanUser:
		return xos.Account{User: xos.UserID(subject)}
	case vom.BanAccount:
		if a, err := xos.ParseAccount(subject); err == nil {
			return a
		}
	}
	return xos.Account{}
}

func wireBan(b vom.Ban) *xosv1.Ban {
	w := &xosv1.Ban{Kind: string(b.Kind), Subject: b.Subject, Reason: b.Reason, Since: timestamppb.New(b.Since)}
	if !b.Until.IsZero() {
		w.Until = timestamppb.New(b.Until)
	}
	return w
}

// AddBan implements RevocationsHandler.
func (s *Service) AddBan(ctx context.Context, req *connect.Request[xosv1.AddBanRequest]) (*connect.Response[xosv1.AddBanResponse], error) {
	m := req.Msg
	return admin(ctx, s, req, concerns(m.Kind, m.Subject), func(by string) (*xosv1.AddBanResponse, error) {
		b := vom.Ban{Kind: vom.BanKind(m.Kind), Subject: m.Subject, Reason: m.Reason}
		if b.Reason == "" {
			b.Reason = "banned " + by
		}
		// A ban may last longer than what else has a duration here.
		if m.Seconds < 0 || m.Seconds > int64(maxBanFor.Seconds()) {
			return nil, xos.Errorf(xos.Invalid, "%d seconds is no time for a ban", m.Seconds)
		}
		b, err := s.records.AddBan(ctx, b, time.Duration(m.Seconds)*time.Second)
		return &xosv1.AddBanResponse{Ban: wireBan(b)}, err
	})
}

// RemoveBan implements RevocationsHandler.
func (s *Service) RemoveBan(ctx context.Context, req *connect.Request[xosv1.RemoveBanRequest]) (*connect.Response[xosv1.RemoveBanResponse], error) {
	m := req.Msg
	return admin(ctx, s, req, concerns(m.Kind, m.Subject), func(string) (*xosv1.RemoveBanResponse, error) {
		return &xosv1.RemoveBanResponse{}, s.records.RemoveBan(ctx, vom.BanKind(m.Kind), m.Subject)
	})
}

// ListBans implements RevocationsHandler.
func (s *Service) ListBans(ctx context.Context, req *connect.Request[xosv1.ListBansRequest]) (*connect.Response[xosv1.ListBansResponse], error) {
	return admin(ctx, s, req, xos.Account{}, func(string) (*xosv1.ListBansResponse, error) {
		list, err := s.records.ListBans(ctx)
		resp := &xosv1.ListBansResponse{}
		for _, b := range list {
			resp.Bans = append(resp.Bans, wireBan(b))
		}
		return resp, err
	})
}

// SetRemoval implements RevocationsHandler.
func (s *Service) SetRemoval(ctx context.Context, req *connect.Request[xosv1.SetRemovalRequest]) (*connect.Response[xosv1.SetRemovalResponse], error) {
	m := req.Msg
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(m.Vo)}, func(string) (*xosv1.SetRemovalResponse, error) {
		long, err := seconds(m.Seconds)
		if err != nil {
			return nil, err
		}
		p, err := s.records.SetRemoval(ctx, xos.VOName(m.Vo), vom.Removal{Fate: vom.Fate(m.Fate), For: long})
		return &xosv1.SetRemovalResponse{Seconds: int64(p.For.Seconds())}, err
	})
}

// SetOffline implements RevocationsHandler.
func (s *Service) SetOffline(ctx context.Context, req *connect.Request[xosv1.SetOfflineRequest]) (*connect.Response[xosv1.SetOfflineResponse], error) {
	m := req.Msg
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(m.Vo)}, func(string) (*xosv1.SetOfflineResponse, error) {
		long, err := seconds(m.Seconds)
		if err != nil {
			return nil, err
		}
		return &xosv1.SetOfflineResponse{}, s.records.SetOffline(ctx, xos.VOName(m.Vo), long)
	})
}
