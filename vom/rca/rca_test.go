package rca_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/vomtest"
)

func hostKey(t *testing.T, public any) string {
	t.Helper()
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

func TestOnlyRootAdministers(t *testing.T) {
	g := vomtest.Start(t)
	_, alice := g.Issue("alice@physics", g.Member("alice@physics", vom.RoleAdmin))
	node := g.Join("node1", vom.ServiceNode)
	for name, ctx := range map[string]context.Context{
		"nobody": t.Context(), "a stranger": g.Stranger(), "a local user": rpc.WithPeer(t.Context(), rpc.Peer{Unix: true, UID: 1000}),
		"a stranger who says root": rpc.WithPeer(t.Context(), rpc.Peer{UID: 0, Address: "192.0.2.1:9"}),
		"a VO's administrator":     g.As(credtest.Chain(t, alice)), "a node": g.As(credtest.Chain(t, node)),
	} {
		for what, err := range map[string]error{
			"make a token":     second(g.RCA.CreateJoinToken(ctx, connect.NewRequest(&xosv1.CreateJoinTokenRequest{}))),
			"list machines":    second(g.RCA.ListMachines(ctx, connect.NewRequest(&xosv1.ListMachinesRequest{}))),
			"remove a machine": second(g.RCA.RemoveMachine(ctx, connect.NewRequest(&xosv1.RemoveMachineRequest{Name: "node1"}))),
		} {
			if !xos.Is(err, xos.Permission) {
				t.Errorf("%s may %s: %v", name, what, err)
			}
		}
	}
	for _, bad := range []*xosv1.CreateJoinTokenRequest{{Seconds: -1}, {Seconds: 1 << 62}, {Uses: -1}, {Uses: 1 << 40}} {
		if _, err := g.RCA.CreateJoinToken(g.Root(), connect.NewRequest(bad)); !xos.Is(err, xos.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, reason := range []string{"a\nb", strings.Repeat("x", 1<<20), "\x1b[2J"} {
		if _, err := g.RCA.RemoveMachine(g.Root(), connect.NewRequest(&xosv1.RemoveMachineRequest{Name: "node1", Reason: reason})); !xos.Is(err, xos.Invalid) {
			t.Errorf("reason %.20q: %v", reason, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A refusal leaves the token whole and no trace of the machine.
func TestJoinRefusals(t *testing.T) {
	g := vomtest.Start(t)
	token := g.JoinToken(1)
	csr, _ := vomtest.Request(t)
	stolen := bytes.Clone(csr)
	stolen[len(stolen)-5] ^= 4
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	signer := func() string {
		user, _ := credtest.New(t).SSHUser("alice@physics")
		return string(ssh.MarshalAuthorizedKey(user))
	}
	good := &xosv1.JoinRequest{Token: token, Name: "node1", Service: "node", Csr: csr, SshHostKey: hostKey(t, ed)}
	for _, tt := range []struct {
		name string
		edit func(*xosv1.JoinRequest)
		want xos.Kind
	}{
		{"no token", func(r *xosv1.JoinRequest) { r.Token = "" }, xos.Permission},
		{"dots for a token", func(r *xosv1.JoinRequest) { r.Token = ".." }, xos.Permission},
		{"another secret", func(r *xosv1.JoinRequest) { id, _, _ := strings.Cut(token, "."); r.Token = id + ".x.y" }, xos.Permission},
		{"a long token", func(r *xosv1.JoinRequest) { r.Token = strings.Repeat("a", 1<<20) }, xos.Permission},
		{"no name", func(r *xosv1.JoinRequest) { r.Name = "" }, xos.Invalid},
		{"root", func(r *xosv1.JoinRequest) { r.Name = "root" }, xos.Invalid},
		{"a newline", func(r *xosv1.JoinRequest) { r.Name = "node1\n" }, xos.Invalid},
		{"a wildcard", func(r *xosv1.JoinRequest) { r.Name = "*" }, xos.Invalid},
		{"200 letters", func(r *xosv1.JoinRequest) { r.Name = strings.Repeat("n", 200) }, xos.Invalid},
		{"unicode", func(r *xosv1.JoinRequest) { r.Name = "nöde" }, xos.Invalid},
		{"a core", func(r *xosv1.JoinRequest) { r.Service = "core" }, xos.Invalid},
		{"no service", func(r *xosv1.JoinRequest) { r.Service = "" }, xos.Invalid},
		{"no key", func(r *xosv1.JoinRequest) { r.Csr = nil }, xos.Invalid},
		{"another's key", func(r *xosv1.JoinRequest) { r.Csr = stolen }, xos.Permission},
		{"no host key", func(r *xosv1.JoinRequest) { r.SshHostKey = "ssh-ed25519 AAAA" }, xos.Invalid},
		{"a certificate for a host key", func(r *xosv1.JoinRequest) { r.SshHostKey = signer() }, xos.Invalid},
		{"a weak host key", func(r *xosv1.JoinRequest) { r.SshHostKey = hostKey(t, &weak.PublicKey) }, xos.Invalid},
		{"a host key of 9 KiB", func(r *xosv1.JoinRequest) { r.SshHostKey = strings.Repeat("x", 9<<10) }, xos.TooLarge},
	} {
		req := &xosv1.JoinRequest{Token: good.Token, Name: good.Name, Service: good.Service, Csr: good.Csr, SshHostKey: good.SshHostKey}
		tt.edit(req)
		if _, err := g.RCA.Join(g.Stranger(), connect.NewRequest(req)); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if r := g.Audit.Last(); r.Allowed || r.Action != "join" || r.Reason == "" {
			t.Errorf("%s: on record is %+v", tt.name, r)
		}
	}
	if list, err := g.Records.ListMachines(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("machines %v, %v", list, err)
	}
	resp, err := g.RCA.Join(g.Stranger(), connect.NewRequest(good))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(resp.Msg.SshHostCertificate))
	if err != nil {
		t.Fatal(err)
	}
	host := key.(*ssh.Certificate)
	if host.CertType != ssh.HostCert || len(host.ValidPrincipals) != 1 || host.ValidPrincipals[0] != "node1" || len(host.Extensions) > 0 {
		t.Errorf("certified %+v", host)
	}
	if _, err := g.Verifier.SSH(host, "node1"); !xos.Is(err, xos.Invalid) {
		t.Errorf("a host's certificate logs in: %v", err)
	}
	if _, err := g.RCA.Join(g.Stranger(), connect.NewRequest(good)); !xos.Is(err, xos.Permission) {
		t.Errorf("the token's second use: %v", err)
	}
	g.Audit.Fail.Store(true)
	if _, err := g.RCA.CreateJoinToken(g.Root(), connect.NewRequest(&xosv1.CreateJoinTokenRequest{})); !xos.Is(err, xos.Unavailable) {
		t.Errorf("without a record: %v", err)
	}
}

// A machine's certificate is its own, and ends with its removal; what it can
// get with one is no more than it had.
func TestMachines(t *testing.T) {
	g := vomtest.Start(t)
	_, alice := g.Issue("alice@physics", g.Member("alice@physics"))
	node, storage := g.Join("node1", vom.ServiceNode), g.Join("store1", vom.ServiceStorage)
	renew := func(ctx context.Context, edit ...func(*x509.CertificateRequest)) (*xosv1.JoinResponse, error) {
		csr, _ := vomtest.Request(t, edit...)
		resp, err := g.RCA.RenewMachine(ctx, connect.NewRequest(&xosv1.RenewMachineRequest{Csr: csr}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	bundle := func(ctx context.Context, epoch uint64) (*xosv1.BundleResponse, error) {
		resp, err := g.RCA.Bundle(ctx, connect.NewRequest(&xosv1.BundleRequest{Epoch: epoch}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	for name, tt := range map[string]struct {
		ctx  context.Context
		want xos.Kind
	}{
		"a stranger":     {g.Stranger(), xos.Permission},
		"root":           {g.Root(), xos.Permission},
		"a user":         {g.As(credtest.Chain(t, alice)), xos.Invalid},
		"a foreign node": {g.As(credtest.Chain(t, credtest.New(t).Machine("node1", vom.ServiceNode))), xos.Permission},
	} {
		if _, err := renew(tt.ctx); !xos.Is(err, tt.want) {
			t.Errorf("renewal for %s: %v", name, err)
		}
		if _, err := bundle(tt.ctx, 0); !xos.Is(err, tt.want) {
			t.Errorf("bundle for %s: %v", name, err)
		}
	}
	self := g.As(credtest.Chain(t, node))
	got, err := renew(self, func(r *x509.CertificateRequest) { r.Subject.CommonName = "store1" })
	if err != nil {
		t.Fatal(err)
	}
	m, err := g.Verifier.Machine(vomtest.Parse(t, got.X509Chain))
	if err != nil || m.Node != "node1" || m.Service != vom.ServiceNode {
		t.Errorf("node1 became %+v, %v", m, err)
	}
	if _, err := renew(self); !xos.Is(err, xos.Permission) {
		t.Errorf("with the certificate of a key it has given up: %v", err)
	}
	self = g.As(vomtest.Parse(t, got.X509Chain))
	if _, err := renew(self, func(r *x509.CertificateRequest) {
		for i := range 17 {
			r.IPAddresses = append(r.IPAddresses, net.IPv4(10, 0, 0, byte(i)))
		}
	}); !xos.Is(err, xos.TooLarge) {
		t.Errorf("17 addresses: %v", err)
	}
	full, err := bundle(self, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b vom.Bundle
	if err := json.Unmarshal(full.Bundle, &b); err != nil || b.Epoch != full.Epoch || len(b.VOs) != 1 {
		t.Errorf("bundle %+v, %v", b, err)
	}
	g.Pass(time.Minute)
	if same, err := bundle(self, full.Epoch); err != nil || len(same.Bundle) > 0 || !same.Issued.AsTime().After(full.Issued.AsTime()) {
		t.Errorf("no news: %v, %v", same, err)
	}
	if _, err := g.RCA.RemoveMachine(g.Root(), connect.NewRequest(&xosv1.RemoveMachineRequest{Name: "node1", Reason: "stolen"})); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"renewal": second(renew(self)), "bundle": second(bundle(self, 0))} {
		if !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "stolen") {
			t.Errorf("%s of a removed machine: %v", name, err)
		}
	}
	again := g.Join("node1", vom.ServiceNode)
	if _, err := bundle(g.As(credtest.Chain(t, again)), 0); err != nil {
		t.Errorf("joined again: %v", err)
	}
	if _, err := bundle(self, 0); !xos.Is(err, xos.Permission) {
		t.Errorf("the removed one, under its old name: %v", err)
	}
	der := storage.Certificate[0]
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 1 << (i % 8)
		if c, err := x509.ParseCertificate(bad); err == nil {
			if _, err := bundle(g.As([]*x509.Certificate{c, credtest.Chain(t, storage)[1]}), 0); err == nil {
				t.Fatalf("byte %d changed, and it serves", i)
			}
		}
	}
	g.Pass(31 * 24 * time.Hour)
	if _, err := bundle(g.As(credtest.Chain(t, storage)), 0); !xos.Is(err, xos.Expired) {
		t.Errorf("expired: %v", err)
	}
}

// TestNodesSayWhatIsInForce: a node's word is taken of itself, and of nodes only;
// a removed one has none.
func TestNodesSayWhatIsInForce(t *testing.T) {
	g := vomtest.Start(t)
	g.Member("alice@physics")
	node, storage := g.Join("node1", vom.ServiceNode), g.Join("store1", vom.ServiceStorage)
	for _, cert := range []tls.Certificate{node, storage} {
		if _, err := g.RCA.Bundle(g.As(credtest.Chain(t, cert)), connect.NewRequest(&xosv1.BundleRequest{
			InForce: &xosv1.InForce{Epoch: g.Records.Bundle().Epoch, Vos: []string{"*"}}})); err != nil {
			t.Fatal(err)
		}
	}
	for ctx, want := range map[context.Context]xos.Kind{g.Stranger(): xos.Permission, g.Root(): xos.Permission,
		g.As(credtest.Chain(t, credtest.New(t).Machine("node9", vom.ServiceNode))): xos.Permission} {
		if _, err := g.RCA.Bundle(ctx, connect.NewRequest(&xosv1.BundleRequest{InForce: &xosv1.InForce{Epoch: 1, Vos: []string{"*"}}})); !xos.Is(err, want) {
			t.Error(err)
		}
	}
	_, nodes, err := g.Records.IsolationInForce(t.Context(), "physics")
	if err != nil || len(nodes) != 1 || nodes[0].Node != "node1" || !nodes[0].InForce {
		t.Errorf("%+v, %v", nodes, err)
	}
	if _, err := g.RCA.RemoveMachine(g.Root(), connect.NewRequest(&xosv1.RemoveMachineRequest{Name: "node1"})); err != nil {
		t.Fatal(err)
	}
	if _, nodes, err := g.Records.IsolationInForce(t.Context(), "physics"); err != nil || len(nodes) != 0 {
		t.Errorf("of a removed machine: %+v, %v", nodes, err)
	}
}
