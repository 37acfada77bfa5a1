package xvoms

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
)

// Audit is where the service's calls are written down: infra/audit's Bounded.
type Audit interface {
	Append(context.Context, audit.Record) error
}

// Verifier says whose a chain of certificates is: vom/credential's Verifier.
type Verifier interface {
	X509(chain []*x509.Certificate) (vom.Identity, error)
}

// Service serves VOs and Revocations (api/xos/v1) to this machine's administrators: each
// caller must be root on the local socket, and each call, refused or not, is
// given to the audit log before it is answered. A VO's policy of isolation
// is also its own administrators' to set, and its members' to see, which has no record.
type Service struct {
	records  *Records
	verifier Verifier
	audit    Audit
	log      *slog.Logger
}

var (
	_ xosv1connect.VOsHandler         = (*Service)(nil)
	_ xosv1connect.RevocationsHandler = (*Service)(nil)
)

// NewService makes the administrators' service.
func NewService(r *Records, v Verifier, a Audit, log *slog.Logger) *Service {
	return &Service{r, v, a, log}
}

// admin runs an administrator's call. by is for reasons: "by root at core".
func admin[Req, Resp any](ctx context.Context, s *Service, req *connect.Request[Req], whom xos.Account, f func(by string) (*Resp, error)) (*connect.Response[Resp], error) {
	p := rpc.PeerFrom(ctx)
	subject := string(whom.User)
	if whom.VO != "" {
		subject = whom.String()
	}
	if whom.User == "" {
		subject = string(whom.VO)
	}
	rec := audit.Record{Actor: actor(p), Action: req.Spec().Procedure, Subject: subject, User: whom.User, VO: whom.VO}
	var resp *Resp
	var err error
	if !p.Unix || p.UID != 0 {
		err = xos.Errorf(xos.Permission, "only administrators may do this").WithHint("run it as root on the core's machine")
	} else {
		rec.Admitted = true
		resp, err = f("by root at " + s.records.cfg.Site)
	}
	return noted(ctx, s, rec, resp, err)
}

// noted writes a call down and gives its answer.
func noted[Resp any](ctx context.Context, s *Service, rec audit.Record, resp *Resp, err error) (*connect.Response[Resp], error) {
	rec.Allowed = err == nil
	if err != nil {
		rec.Reason = err.Error()
	}
	if aerr := s.audit.Append(ctx, rec); aerr != nil {
		s.log.Error("cannot write the audit log", "error", aerr, "action", rec.Action, "subject", rec.Subject)
		if err == nil {
			err = xos.Errorf(xos.Unavailable, "it was done, but could not be written to the audit log: %w", aerr)
		}
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

func actor(p rpc.Peer) string {
	switch {
	case p.Unix && p.UID == 0:
		return "root"
	case p.Unix:
		return "uid " + uitoa(p.UID)
	case len(p.Chain) > 0:
		return p.Chain[0].Subject.CommonName + " from " + p.Address
	}
	return p.Address
}

func (s *Service) CreateVO(ctx context.Context, req *connect.Request[xosv1.CreateVORequest]) (*connect.Response[xosv1.CreateVOResponse], error) {
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(req.Msg.Name)}, func(string) (*xosv1.CreateVOResponse, error) {
		return &xosv1.CreateVOResponse{}, s.records.CreateVO(ctx, xos.VOName(req.Msg.Name))
	})
}

func (s *Service) DeleteVO(ctx context.Context, req *connect.Request[xosv1.DeleteVORequest]) (*connect.Response[xosv1.DeleteVOResponse], error) {
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(req.Msg.Name)}, func(by string) (*xosv1.DeleteVOResponse, error) {
		return &xosv1.DeleteVOResponse{}, s.records.DeleteVO(ctx, xos.VOName(req.Msg.Name), by)
	})
}

func (s *Service) ListVOs(ctx context.Context, req *connect.Request[xosv1.ListVOsRequest]) (*connect.Response[xosv1.ListVOsResponse], error) {
	return admin(ctx, s, req, xos.Account{}, func(string) (*xosv1.ListVOsResponse, error) {
		vos, err := s.records.ListVOs(ctx)
		resp := &xosv1.ListVOsResponse{}
		for _, v := range vos {
			resp.Vos = append(resp.Vos, &xosv1.VO{Name: string(v.Name), Groups: stringsOf(v.Groups), Policy: v.Policy, Isolation: v.Isolation,
				Created: timestamppb.New(v.Created), Members: int64(v.Members), Removal: string(v.Removal.Fate),
				RemovalSeconds: int64(v.Removal.For.Seconds()), OfflineSeconds: int64(v.Offline.Seconds())})
		}
		return resp, err
	})
}

func (s *Service) SetPolicy(ctx context.Context, req *connect.Request[xosv1.SetPolicyRequest]) (*connect.Response[xosv1.SetPolicyResponse], error) {
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(req.Msg.Vo)}, func(string) (*xosv1.SetPolicyResponse, error) {
		return &xosv1.SetPolicyResponse{}, s.records.SetPolicy(ctx, xos.VOName(req.Msg.Vo), req.Msg.Policy)
	})
}

func (s *Service) CreateUser(ctx context.Context, req *connect.Request[xosv1.CreateUserRequest]) (*connect.Response[xosv1.CreateUserResponse], error) {
	return admin(ctx, s, req, xos.Account{User: xos.UserID(req.Msg.Name)}, func(string) (*xosv1.CreateUserResponse, error) {
		tok, err := s.records.CreateUser(ctx, xos.UserID(req.Msg.Name), req.Msg.FullName, req.Msg.Password)
		if err != nil {
			return nil, err
		}
		resp := &xosv1.CreateUserResponse{Token: tok.Secret}
		if tok.Secret != "" {
			resp.TokenExpires = timestamppb.New(tok.Expires)
		}
		return resp, nil
	})
}

func (s *Service) SetPassword(ctx context.Context, req *connect.Request[xosv1.SetPasswordRequest]) (*connect.Response[xosv1.SetPasswordResponse], error) {
	return admin(ctx, s, req, xos.Account{User: xos.UserID(req.Msg.Name)}, func(string) (*xosv1.SetPasswordResponse, error) {
		return &xosv1.SetPasswordResponse{}, s.records.SetPassword(ctx, xos.UserID(req.Msg.Name), req.Msg.Password)
	})
}

func (s *Service) CreateToken(ctx context.Context, req *connect.Request[xosv1.CreateTokenRequest]) (*connect.Response[xosv1.CreateTokenResponse], error) {
	return admin(ctx, s, req, xos.Account{User: xos.UserID(req.Msg.Name)}, func(string) (*xosv1.CreateTokenResponse, error) {
		ttl, err := seconds(req.Msg.Seconds)
		if err != nil {
			return nil, err
		}
		tok, err := s.records.CreateToken(ctx, xos.UserID(req.Msg.Name), ttl)
		return &xosv1.CreateTokenResponse{Token: tok.Secret, Expires: timestamppb.New(tok.Expires)}, err
	})
}

func (s *Service) DeleteUser(ctx context.Context, req *connect.Request[xosv1.DeleteUserRequest]) (*connect.Response[xosv1.DeleteUserResponse], error) {
	return admin(ctx, s, req, xos.Account{User: xos.UserID(req.Msg.Name)}, func(by string) (*xosv1.DeleteUserResponse, error) {
		return &xosv1.DeleteUserResponse{}, s.records.DeleteUser(ctx, xos.UserID(req.Msg.Name), by)
	})
}

func (s *Service) ListUsers(ctx context.Context, req *connect.Request[xosv1.ListUsersRequest]) (*connect.Response[xosv1.ListUsersResponse], error) {
	return admin(ctx, s, req, xos.Account{}, func(string) (*xosv1.ListUsersResponse, error) {
		users, err := s.records.ListUsers(ctx)
		resp := &xosv1.ListUsersResponse{}
		for _, u := range users {
			resp.Users = append(resp.Users, &xosv1.User{Name: string(u.Name), FullName: u.FullName,
				Created: timestamppb.New(u.Created), Vos: stringsOf(u.VOs)})
		}
		return resp, err
	})
}

func (s *Service) AddMember(ctx context.Context, req *connect.Request[xosv1.AddMemberRequest]) (*connect.Response[xosv1.AddMemberResponse], error) {
	a := xos.Account{User: xos.UserID(req.Msg.User), VO: xos.VOName(req.Msg.Vo)}
	return admin(ctx, s, req, a, func(by string) (*xosv1.AddMemberResponse, error) {
		home, restored, err := s.records.admit(ctx, a, named[xos.GroupName](req.Msg.Groups), named[xos.RoleName](req.Msg.Roles), by)
		return &xosv1.AddMemberResponse{Home: string(home), Restored: restored}, err
	})
}

func (s *Service) RemoveMember(ctx context.Context, req *connect.Request[xosv1.RemoveMemberRequest]) (*connect.Response[xosv1.RemoveMemberResponse], error) {
	a := xos.Account{User: xos.UserID(req.Msg.User), VO: xos.VOName(req.Msg.Vo)}
	return admin(ctx, s, req, a, func(by string) (*xosv1.RemoveMemberResponse, error) {
		return &xosv1.RemoveMemberResponse{}, s.records.RemoveMemberTo(ctx, a, vom.Fate(req.Msg.Fate), req.Msg.Reason, by)
	})
}

func (s *Service) ListMembers(ctx context.Context, req *connect.Request[xosv1.ListMembersRequest]) (*connect.Response[xosv1.ListMembersResponse], error) {
	return admin(ctx, s, req, xos.Account{VO: xos.VOName(req.Msg.Vo)}, func(string) (*xosv1.ListMembersResponse, error) {
		members, err := s.records.ListMembers(ctx, xos.VOName(req.Msg.Vo))
		resp := &xosv1.ListMembersResponse{}
		for _, m := range members {
			resp.Members = append(resp.Members, &xosv1.Attributes{User: string(m.User), Vo: string(m.VO),
				Groups: stringsOf(m.Groups), Roles: stringsOf(m.Roles), Home: string(m.Home)})
		}
		return resp, err
	})
}

// seconds bounds a duration of the wire before it can overflow.
func seconds(n int64) (time.Duration, error) {
	if n < 0 || n > 1<<31 {
		return 0, xos.Errorf(xos.Invalid, "%d seconds is no duration for this", n)
	}
	return time.Duration(n) * time.Second, nil
}
