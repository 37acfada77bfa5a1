package xvoms

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
)

// GetIsolation implements VOsHandler. Who may read it has no record: it changes
// nothing, and every machine has the same in its bundle. Who may not has one.
func (s *Service) GetIsolation(ctx context.Context, req *connect.Request[xosv1.GetIsolationRequest]) (*connect.Response[xosv1.GetIsolationResponse], error) {
	who, err := s.ofVO(ctx, xos.VOName(req.Msg.Vo), false)
	var resp *xosv1.GetIsolationResponse
	if err == nil {
		var text string
		var nodes []IsolationAt
		text, nodes, err = s.records.IsolationInForce(ctx, xos.VOName(req.Msg.Vo))
		resp = &xosv1.GetIsolationResponse{Vo: req.Msg.Vo, Isolation: text, Version: IsolationVersion(text)}
		for _, n := range nodes {
			resp.Nodes = append(resp.Nodes, &xosv1.IsolationAt{Node: string(n.Node), InForce: n.InForce, Why: n.Why, Heard: timestamppb.New(n.Heard)})
		}
	}
	if err == nil {
		return connect.NewResponse(resp), nil
	}
	return noted(ctx, s, audit.Record{Actor: who, Action: req.Spec().Procedure, Subject: req.Msg.Vo, VO: xos.VOName(req.Msg.Vo)}, resp, err)
}

// SetIsolation implements VOsHandler. The record has the new text's version.
func (s *Service) SetIsolation(ctx context.Context, req *connect.Request[xosv1.SetIsolationRequest]) (*connect.Response[xosv1.SetIsolationResponse], error) {
	who, err := s.ofVO(ctx, xos.VOName(req.Msg.Vo), true)
	version := IsolationVersion(req.Msg.Isolation)
	admitted := err == nil
	if admitted {
		err = s.records.SetIsolation(ctx, xos.VOName(req.Msg.Vo), req.Msg.Isolation, req.Msg.IfVersion)
	}
	return noted(ctx, s, audit.Record{Actor: who, Action: req.Spec().Procedure, Subject: req.Msg.Vo, VO: xos.VOName(req.Msg.Vo), Admitted: admitted,
		Detail: map[string]string{"version": version}}, &xosv1.SetIsolationResponse{Version: version}, err)
}

// ofVO says who asks, and refuses who is not of the VO, or would change what is
// its administrators' to change. A credential delegated to a machine changes
// nothing: who administers a VO shows her own. What is said to others does not
// depend on whether there is such a VO.
func (s *Service) ofVO(ctx context.Context, vo xos.VOName, change bool) (who string, err error) {
	p := rpc.PeerFrom(ctx)
	who = actor(p)
	switch {
	case p.Unix && p.UID == 0:
		return who, nil
	case p.Unix || len(p.Chain) == 0:
		return who, xos.Errorf(xos.Permission, "show a certificate of the VO").WithHint("xos login, or run it as root on the core's machine")
	}
	id, err := s.verifier.X509(p.Chain)
	if err != nil {
		return who, err
	}
	who = id.Account.String()
	switch {
	case id.VO != vo:
		return who, xos.Errorf(xos.Permission, "%s is of the VO %s, not of %.80q", id.Account, id.VO, string(vo))
	case change && id.Node != "":
		return who, xos.Errorf(xos.Permission, "a credential delegated to %s changes no policy", id.Node)
	case change && !vom.Administers(id):
		return who, xos.Errorf(xos.Permission, "%s does not administer %s", id.Account, id.VO).
			WithHint("administrators have the role %s", vom.RoleAdmin)
	}
	return who, nil
}
