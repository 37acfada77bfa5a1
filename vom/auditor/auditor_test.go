package auditor_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/auditor"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

type fixture struct {
	*auditor.Service
	*credtest.Authority
	t    *testing.T
	path string
	log  *audit.Log
}

// start has a log of 30 records: for each n, one of physics, one of chemistry
// and one of no VO.
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "audit.log"), Authority: credtest.New(t)}
	var err error
	if f.log, err = audit.Open(f.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.log.Close() })
	for n := range 10 {
		for _, r := range []audit.Record{
			{Action: "/xos.v1.VOs/AddMember", Subject: "alice@physics", User: "alice", VO: "physics", Allowed: true},
			{Action: "issue", Subject: "carol@chemistry", Reason: "wrong password"},
			{Action: "join", Subject: fmt.Sprint("node", n), Allowed: true},
		} {
			if err := f.log.Append(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.Service = auditor.New(f.log, f.Verifier(), slog.New(slog.DiscardHandler))
	return f
}

func local(t *testing.T, uid uint32) context.Context {
	return rpc.WithPeer(t.Context(), rpc.Peer{Unix: true, UID: uid})
}

func bearer(t *testing.T, c tls.Certificate) context.Context {
	return rpc.WithPeer(t.Context(), rpc.Peer{Address: "10.0.0.7:1", UID: ^uint32(0), Chain: credtest.Chain(t, c)})
}

func (f *fixture) list(ctx context.Context, req *xosv1.ListAuditRequest) (*xosv1.ListAuditResponse, error) {
	resp, err := f.ListAudit(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func TestWhoSeesWhat(t *testing.T) {
	f := start(t)
	admin := f.X509User("alice@physics", credtest.Roles(vom.RoleAdmin))
	old := f.X509User("dave@physics", credtest.Roles(vom.RoleAdmin), credtest.Issued(time.Now().Add(-time.Hour), 2*time.Hour))
	f.Revoke(vom.Revocation{User: "dave", Before: time.Now().Add(-time.Minute)})
	for _, tt := range []struct {
		name string
		ctx  context.Context
		vo   string
		want int // records; -1: refused
		kind xos.Kind
	}{
		{"root", local(t, 0), "", 30, 0},
		{"root, of a VO", local(t, 0), "chemistry", 10, 0},
		{"a local user", local(t, 1000), "", -1, xos.Permission},
		{"nobody", rpc.WithPeer(t.Context(), rpc.Peer{Address: "10.0.0.7:1", UID: 0}), "", -1, xos.Permission},
		{"no peer", t.Context(), "", -1, xos.Permission},
		{"a VO's administrator", bearer(t, admin), "", 10, 0},
		{"a VO's administrator by name", bearer(t, admin), "physics", 10, 0},
		{"another VO's administrator", bearer(t, admin), "chemistry", -1, xos.Permission},
		{"a member", bearer(t, f.X509User("alice@physics", credtest.Roles("analyst"))), "", -1, xos.Permission},
		{"a group is no role", bearer(t, f.X509User("alice@physics", credtest.Groups("admin"))), "", -1, xos.Permission},
		{"a machine that acts for her", bearer(t, f.Delegated("alice@physics", "node1", credtest.Roles(vom.RoleAdmin))), "", -1, xos.Permission},
		{"a machine", bearer(t, f.Machine("node1", vom.ServiceNode)), "", -1, xos.Invalid},
		{"a core", bearer(t, f.Machine("core2", vom.ServiceCore)), "", -1, xos.Invalid},
		{"a foreign authority's", bearer(t, credtest.New(t).X509User("alice@physics", credtest.Roles(vom.RoleAdmin))), "", -1, xos.Permission},
		{"one that has expired", bearer(t, f.X509User("alice@physics", credtest.Roles(vom.RoleAdmin), credtest.Issued(time.Now().Add(-time.Hour), time.Minute))), "", -1, xos.Expired},
		{"one that was revoked", bearer(t, old), "", -1, xos.Permission},
	} {
		before, _ := f.log.Head()
		got, err := f.list(tt.ctx, &xosv1.ListAuditRequest{Vo: tt.vo, Before: 31, Limit: 1000})
		if tt.want < 0 {
			if !xos.Is(err, tt.kind) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.kind)
			}
			if after, _ := f.log.Head(); after != before+1 {
				t.Errorf("%s: the refusal is not on record", tt.name)
			}
			continue
		}
		if err != nil || len(got.Records) != tt.want {
			t.Errorf("%s: %d records, %v", tt.name, len(got.GetRecords()), err)
		}
	}
	// No word of the others comes through any filter.
	for _, req := range []*xosv1.ListAuditRequest{{User: "carol"}, {Action: "join"}, {Action: "issue"}, {Refused: true}} {
		got, err := f.list(bearer(t, admin), req)
		if err != nil {
			t.Errorf("%v: %v", req, err)
			continue
		}
		for _, r := range got.Records {
			if r.Vo != "physics" {
				t.Errorf("%v shows %v", req, r)
			}
		}
	}
}

func TestPagesAndFilters(t *testing.T) {
	f := start(t)
	root := local(t, 0)
	var seen []uint64
	for next := uint64(31); next != 0; {
		page, err := f.list(root, &xosv1.ListAuditRequest{Vo: "physics", Before: next, Limit: 4})
		if err != nil {
			t.Fatal(err)
		}
		for i := len(page.Records) - 1; i >= 0; i-- {
			seen = append(seen, page.Records[i].Seq)
		}
		next = page.Before
	}
	if len(seen) != 10 || seen[0] != 28 || seen[9] != 1 {
		t.Errorf("pages give %v", seen)
	}
	if head, _ := f.log.Head(); head != 30 {
		t.Errorf("later pages are on record: %d", head)
	}
	for _, tt := range []struct {
		req  *xosv1.ListAuditRequest
		want int
	}{
		{&xosv1.ListAuditRequest{User: "carol", Refused: true, Before: 31}, 10},
		{&xosv1.ListAuditRequest{User: "carol", Action: "AddMember", Before: 31}, 0},
		{&xosv1.ListAuditRequest{Action: "AddMember", Before: 31}, 10},
		{&xosv1.ListAuditRequest{Since: timestamppb.New(time.Now().Add(time.Hour)), Before: 31}, 0},
		{&xosv1.ListAuditRequest{Since: timestamppb.New(time.Now().Add(-time.Hour)), Before: 31}, 30},
		{&xosv1.ListAuditRequest{User: "x\n\x00", Before: 31}, 0},
	} {
		if got, err := f.list(root, tt.req); err != nil || len(got.Records) != tt.want {
			t.Errorf("%v: %d, %v", tt.req, len(got.GetRecords()), err)
		}
	}
	for _, bad := range []*xosv1.ListAuditRequest{{Limit: -1}, {Limit: 1001}, {Limit: 1 << 40}, {Since: &timestamppb.Timestamp{Seconds: 1 << 62}}} {
		if _, err := f.list(root, bad); !xos.Is(err, xos.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if got, err := f.list(root, &xosv1.ListAuditRequest{Action: "ListAudit"}); err != nil || len(got.Records) != 4 || got.Records[0].Actor != "root" {
		t.Errorf("readings on record: %v, %v", got, err)
	}
}

func TestVerify(t *testing.T) {
	f := start(t)
	verify := func(ctx context.Context, seq uint64, hash string) (*xosv1.VerifyAuditResponse, error) {
		resp, err := f.VerifyAudit(ctx, connect.NewRequest(&xosv1.VerifyAuditRequest{Seq: seq, Hash: hash}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	root := local(t, 0)
	first, err := verify(root, 0, "")
	if err != nil || !first.Whole || first.Seq != 30 || len(first.Hash) != 64 || first.Broken != 0 {
		t.Fatalf("%v, %v", first, err)
	}
	if again, err := verify(root, first.Seq, first.Hash); err != nil || !again.Whole || again.Seq != 31 {
		t.Errorf("with what was noted: %v, %v", again, err)
	}
	if forged, err := verify(root, 30, strings.Repeat("0", 64)); err != nil || forged.Whole || forged.Broken != 30 {
		t.Errorf("with another hash: %v, %v", forged, err)
	}
	for _, bad := range []struct {
		seq  uint64
		hash string
	}{{0, first.Hash}, {30, ""}, {30, "abc"}} {
		if _, err := verify(root, bad.seq, bad.hash); !xos.Is(err, xos.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, ctx := range []context.Context{local(t, 1), t.Context(), bearer(t, f.X509User("alice@physics", credtest.Roles(vom.RoleAdmin)))} {
		if _, err := verify(ctx, 0, ""); !xos.Is(err, xos.Permission) {
			t.Errorf("not root: %v", err)
		}
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(data), "carol@chemistry", "mallo@chemistry", 1)
	if err := os.WriteFile(f.path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := verify(root, 0, ""); err != nil || got.Whole || got.Broken != 3 || got.Seq != 2 || got.Reason == "" {
		t.Errorf("changed: %v, %v", got, err)
	}
}

// deaf is a log that cannot be written.
type deaf struct{ *audit.Log }

func (deaf) Append(context.Context, audit.Record) error { return errors.New("disk full") }

func TestNothingIsReadUnnoted(t *testing.T) {
	f := start(t)
	s := auditor.New(deaf{f.log}, f.Verifier(), slog.New(slog.DiscardHandler))
	if _, err := s.ListAudit(local(t, 0), connect.NewRequest(&xosv1.ListAuditRequest{})); !xos.Is(err, xos.Unavailable) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.VerifyAudit(local(t, 0), connect.NewRequest(&xosv1.VerifyAuditRequest{})); !xos.Is(err, xos.Unavailable) {
		t.Errorf("verify: %v", err)
	}
	if _, err := s.ListAudit(local(t, 7), connect.NewRequest(&xosv1.ListAuditRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("refused: %v", err)
	}
}
