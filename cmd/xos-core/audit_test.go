package main

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
)

// The log of a real core: root sees it all and finds it whole; alice, who
// administers physics, sees what concerns physics until she no longer does.
func TestRootAudit(t *testing.T) {
	var socket string
	c := start(t, func(cfg *config) {
		cfg.Socket = filepath.Join(t.TempDir(), "admin.sock")
		socket = cfg.Socket
	})
	ctx := context.Background()
	alice, carol := c.member("alice", "physics"), c.member("carol", "chemistry")
	role := func(roles ...string) {
		t.Helper()
		if _, err := c.vos.AddMember(ctx, connect.NewRequest(&xosv1.AddMemberRequest{Vo: "physics", User: "alice", Roles: roles})); err != nil {
			t.Fatal(err)
		}
	}
	role("analyst", string(vom.RoleAdmin))
	cred, err := c.login("alice@physics", alice, "")
	if err != nil {
		t.Fatal(err)
	}
	member, err := c.login("carol@chemistry", carol, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.login("alice@physics", alice, ""); err == nil {
		t.Fatal("a token served twice")
	}
	as := func(cert *tls.Certificate) xosv1connect.AuditClient {
		show := func() (*tls.Certificate, error) { return cert, nil }
		return xosv1connect.NewAuditClient(rpc.TLSClient(machine.CoreTLS(c.roots, show)), "https://"+c.api, rpc.ClientOptions()...)
	}
	list := func(by xosv1connect.AuditClient, req *xosv1.ListAuditRequest) ([]*xosv1.AuditRecord, error) {
		resp, err := by.ListAudit(ctx, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		return resp.Msg.Records, nil
	}
	root := xosv1connect.NewAuditClient(rpc.UnixClient(socket), rpc.UnixBase, rpc.ClientOptions()...)
	got, err := list(root, &xosv1.ListAuditRequest{Vo: "physics", User: "alice", Action: "issue"})
	if err != nil || len(got) != 2 || !got[0].Allowed || got[1].Allowed || got[1].Reason == "" {
		t.Errorf("root: %v, %v", got, err)
	}
	if got, err := list(root, &xosv1.ListAuditRequest{User: "carol"}); err != nil || len(got) != 3 {
		t.Errorf("what concerns carol (her making, her membership, her login): %v, %v", got, err)
	}
	got, err = list(as(&cred.TLS), &xosv1.ListAuditRequest{})
	if err != nil || len(got) < 4 {
		t.Errorf("alice: %v, %v", got, err)
	}
	for _, r := range got {
		if r.Vo != "physics" {
			t.Errorf("alice sees %v", r)
		}
	}
	if _, err := list(as(&cred.TLS), &xosv1.ListAuditRequest{Vo: "chemistry"}); !xos.Is(err, xos.Permission) {
		t.Errorf("alice of chemistry: %v", err)
	}
	if _, err := list(as(&member.TLS), &xosv1.ListAuditRequest{}); !xos.Is(err, xos.Permission) {
		t.Errorf("carol: %v", err)
	}
	if _, err := as(&cred.TLS).VerifyAudit(ctx, connect.NewRequest(&xosv1.VerifyAuditRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("alice verifies: %v", err)
	}
	role("analyst")
	if _, err := list(as(&cred.TLS), &xosv1.ListAuditRequest{}); !xos.Is(err, xos.Permission) {
		t.Errorf("alice, no longer administrator: %v", err)
	}
	if v, err := root.VerifyAudit(ctx, connect.NewRequest(&xosv1.VerifyAuditRequest{})); err != nil || !v.Msg.Whole || v.Msg.Seq < 12 {
		t.Errorf("verify: %v, %v", v, err)
	}
}
