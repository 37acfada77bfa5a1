package service

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
)

// onlyRoot refuses everybody else.
func onlyRoot(ctx context.Context) error {
	uid, err := caller(ctx)
	if err == nil && uid != 0 {
		err = xos.Errorf(xos.Permission, "only root sees the machine's uids").WithHint("run it with sudo")
	}
	return err
}

// ListUIDs implements UIDsHandler.
func (s *Service) ListUIDs(ctx context.Context, req *connect.Request[xosv1.ListUIDsRequest]) (*connect.Response[xosv1.ListUIDsResponse], error) {
	if err := onlyRoot(ctx); err != nil {
		return nil, err
	}
	want := account.State(req.Msg.State)
	var entries []account.Entry
	switch want {
	case account.Free:
		entries = s.Accounts.Spent()
	case "", account.Active, account.Closing, account.Quarantined:
		entries = s.Accounts.Users()
	default:
		return nil, xos.Errorf(xos.Invalid, "%.40q is no state of a uid", req.Msg.State).WithHint("active, closing, quarantined or free")
	}
	resp := &xosv1.ListUIDsResponse{Sweep: s.lastSweep()}
	for _, e := range entries {
		if want == "" || e.State == want {
			resp.Uids = append(resp.Uids, s.uid(e))
		}
	}
	return connect.NewResponse(resp), nil
}

// ShowUID implements UIDsHandler.
func (s *Service) ShowUID(ctx context.Context, req *connect.Request[xosv1.ShowUIDRequest]) (*connect.Response[xosv1.ShowUIDResponse], error) {
	if err := onlyRoot(ctx); err != nil {
		return nil, err
	}
	id, _ := strconv.ParseUint(req.Msg.Subject, 10, 32)
	for _, e := range append(s.Accounts.Users(), s.Accounts.Spent()...) {
		if e.Name != req.Msg.Subject && !has(e, id) {
			continue
		}
		resp := &xosv1.ShowUIDResponse{Uid: s.uid(e), Sweep: s.lastSweep()}
		for _, f := range s.swept.findings(e.ID) {
			user, number := e.Name, strconv.FormatUint(uint64(e.ID), 10)
			advice := strings.NewReplacer("USER", user, "UID", number).Replace(f.Kind.Advice())
			resp.Findings = append(resp.Findings, &xosv1.UIDFinding{Kind: string(f.Kind), Where: f.Where, Why: f.Why, Advice: advice})
		}
		return connect.NewResponse(resp), nil
	}
	return nil, xos.Errorf(xos.NotFound, "this machine has no uid of %.80q", req.Msg.Subject).WithHint("xos uid list")
}

// SweepUIDs implements UIDsHandler. Whose time here is over goes into quarantine
// first: root, who has just seen somebody leave, need not wait for Retire.
func (s *Service) SweepUIDs(ctx context.Context, _ *connect.Request[xosv1.SweepUIDsRequest]) (*connect.Response[xosv1.SweepUIDsResponse], error) {
	if err := onlyRoot(ctx); err != nil {
		return nil, err
	}
	s.retire(ctx)
	if resting, _ := s.resting(); len(resting) == 0 {
		return nil, xos.Errorf(xos.NotFound, "no uid is in quarantine").WithHint("xos uid list")
	}
	s.beginSweep()
	return connect.NewResponse(&xosv1.SweepUIDsResponse{Sweep: s.lastSweep()}), nil
}

func (s *Service) uid(e account.Entry) *xosv1.UID {
	u := &xosv1.UID{Uid: e.ID, Account: e.Name, State: string(e.State), Since: stamp(e.Since), Seen: stamp(e.Seen), Proof: e.Proof,
		Found: s.swept.count(e.ID)}
	if at, ok := s.Accounts.Due(e); ok {
		u.Due = stamp(at)
	}
	if e.Sub != 0 {
		u.SubidFirst, u.SubidCount = e.Sub, account.SubIDs
		if a, err := xos.ParseAccount(e.Name); err == nil {
			first, ok := s.Accounts.SubIDsOf(a)
			u.SubidsServed = ok && first == e.Sub && s.serves(a.VO)
		}
	}
	return u
}

// has reports whether a number is an account's uid or one of its subordinate ids.
func has(e account.Entry, id uint64) bool {
	ids := idsOf(e)
	return uint64(ids.UID) == id || ids.First != 0 && uint64(ids.First) <= id && id <= uint64(ids.Last)
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// looked puts a report's looks in words.
func looked(r residue.Report) (words []string) {
	for _, l := range r.Looks {
		words = append(words, fmt.Sprintf("%s: %d seen, %d found", l.Kind, l.Seen, l.Found))
	}
	return words
}

func skipped(r residue.Report) (words []string) {
	for _, l := range r.Looks {
		words = append(words, l.Skipped...)
	}
	return words
}
