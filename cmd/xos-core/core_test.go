package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/machine"
	"github.com/xtreemos/xos/vom/order"
	"github.com/xtreemos/xos/vom/wallet"
)

// testCore is a running core, on loopback and in a directory of the test's.
type testCore struct {
	t        *testing.T
	api      string
	vos      xosv1connect.VOsClient
	machines xosv1connect.MachinesClient
	roots    []*x509.Certificate
	stop     func() // ends it before the test does

	refusals atomic.Int64 // lines of the core's own log
}

// freePort gives an address to listen on. It is none that the kernel gives to
// connections and to who asks for any: another process could have it before the
// core does, or while the core is started again.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 10000+mathrand.IntN(20000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

func start(t *testing.T, change func(*config)) *testCore {
	t.Helper()
	need.Root(t) // administrators are root
	cfg, err := defaults()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg.AuditJournal = false // the machine's own
	cfg.Name, cfg.State, cfg.Socket = "core", filepath.Join(dir, "state"), filepath.Join(dir, "core.sock")
	cfg.Listen, cfg.ListenBus, cfg.ListenMRC = freePort(t), freePort(t), freePort(t)
	if change != nil {
		change(&cfg)
	}
	c := &testCore{t: t, api: cfg.Listen}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg, slog.New(slog.NewTextHandler(testWriter{t, &c.refusals}, nil))) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("core ended with %v", err)
		}
	})
	t.Cleanup(stop)
	c.stop = stop
	c.vos = xosv1connect.NewVOsClient(rpc.UnixClient(cfg.Socket), rpc.UnixBase, rpc.ClientOptions()...)
	c.machines = xosv1connect.NewMachinesClient(rpc.UnixClient(cfg.Socket), rpc.UnixBase, rpc.ClientOptions()...)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := c.vos.ListVOs(ctx, connect.NewRequest(&xosv1.ListVOsRequest{}))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	trust, _, err := machine.FetchTrust(ctx, c.api, c.fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range trust.X509Roots {
		block, _ := pem.Decode([]byte(text))
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		c.roots = append(c.roots, root)
	}
	return c
}

// testWriter takes what the core logs, and counts refusals.
type testWriter struct {
	t        *testing.T
	refusals *atomic.Int64
}

func (w testWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "msg=refused ") {
		w.refusals.Add(1)
	}
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (c *testCore) joinToken() string {
	c.t.Helper()
	resp, err := c.machines.CreateJoinToken(context.Background(), connect.NewRequest(&xosv1.CreateJoinTokenRequest{Uses: 1}))
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.Msg.Token
}

func (c *testCore) fingerprint() string {
	f, err := machine.Token(c.joinToken()).Fingerprint()
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// creds speaks to the CDA, with a certificate if one is given.
func (c *testCore) creds(cert *tls.Certificate) xosv1connect.CredentialsClient {
	var show credential.Certificate
	if cert != nil {
		show = func() (*tls.Certificate, error) { return cert, nil }
	}
	return xosv1connect.NewCredentialsClient(rpc.TLSClient(machine.CoreTLS(c.roots, show)), "https://"+c.api, rpc.ClientOptions()...)
}

// member makes a user, a VO where it is new, and a membership; it gives the
// enrolment token.
func (c *testCore) member(user, vo string, groups ...string) string {
	c.t.Helper()
	ctx := context.Background()
	if _, err := c.vos.CreateVO(ctx, connect.NewRequest(&xosv1.CreateVORequest{Name: vo})); err != nil && !xos.Is(err, xos.Exists) {
		c.t.Fatal(err)
	}
	u, err := c.vos.CreateUser(ctx, connect.NewRequest(&xosv1.CreateUserRequest{Name: user}))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.vos.AddMember(ctx, connect.NewRequest(&xosv1.AddMemberRequest{Vo: vo, User: user, Groups: groups, Roles: []string{"analyst"}})); err != nil {
		c.t.Fatal(err)
	}
	return u.Msg.Token
}

func (c *testCore) login(account, token, newPassword string) (wallet.Credential, error) {
	c.t.Helper()
	a, err := xos.ParseAccount(account)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := wallet.NewRequest(a)
	if err != nil {
		c.t.Fatal(err)
	}
	req := &xosv1.IssueRequest{Account: account, Csr: r.CSR, NewPassword: newPassword}
	if strings.HasPrefix(token, "password ") {
		req.Password = strings.TrimPrefix(token, "password ")
	} else {
		req.Token = token
	}
	resp, err := c.creds(nil).Issue(context.Background(), connect.NewRequest(req))
	if err != nil {
		return wallet.Credential{}, err
	}
	return wallet.Open(c.t.TempDir()).Store(a, r, resp.Msg.X509Chain, resp.Msg.SshCertificate)
}

func (c *testCore) node(name string) tls.Certificate {
	c.t.Helper()
	j, err := machine.Join(context.Background(), machine.JoinConfig{Core: c.api, Token: machine.Token(c.joinToken()), Name: name, Service: vom.ServiceNode, Addresses: []net.IP{}})
	if err != nil {
		c.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(j.CertPEM, j.KeyPEM)
	if err != nil {
		c.t.Fatal(err)
	}
	return pair
}

func newCSR(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRootLogin(t *testing.T) {
	c := start(t, nil)
	token := c.member("alice", "physics", "higgs")
	cred, err := c.login("alice@physics", token, "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	id, err := credential.FromX509(cred.TLS.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	fromSSH, err := credential.FromSSH(cred.SSH)
	if err != nil {
		t.Fatal(err)
	}
	if id.Account.String() != "alice@physics" || strings.Join(id.GroupNames(), " ") != "physics physics:higgs" || id.Home != "home-physics-alice" ||
		len(id.Roles) != 1 || fromSSH.Serial != id.Serial || fromSSH.Home != id.Home {
		t.Errorf("certified %+v and %+v", id, fromSSH)
	}
	if _, err := c.login("alice@physics", token, ""); !xos.Is(err, xos.Permission) {
		t.Errorf("a token's second use: %v", err)
	}
	if _, err := c.login("alice@physics", "password wrong", ""); !xos.Is(err, xos.Permission) {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := c.login("alice@physics", "password correct horse battery", ""); err != nil {
		t.Errorf("the password set with the token: %v", err)
	}
	if _, err := c.login("nobody-here@physics", "password x", ""); !xos.Is(err, xos.Permission) {
		t.Errorf("an unknown user: %v", err)
	}
	tampered := newCSR(t)
	tampered[len(tampered)-1] ^= 1
	_, err = c.creds(nil).Issue(context.Background(), connect.NewRequest(&xosv1.IssueRequest{Account: "alice@physics", Password: "correct horse battery", Csr: tampered}))
	if !xos.Is(err, xos.Permission) {
		t.Errorf("a tampered request: %v", err)
	}
}

func TestRootRemovalRefusesOldCertificates(t *testing.T) {
	c := start(t, nil)
	cred, err := c.login("alice@physics", c.member("alice", "physics"), "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	renew := func() error {
		_, err := c.creds(&cred.TLS).Renew(ctx, connect.NewRequest(&xosv1.RenewRequest{Csr: newCSR(t)}))
		return err
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.vos.RemoveMember(ctx, connect.NewRequest(&xosv1.RemoveMemberRequest{Vo: "physics", User: "alice", Reason: "left"})); err != nil {
		t.Fatal(err)
	}
	if err := renew(); !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "left") {
		t.Errorf("renewal after removal: %v", err)
	}
	why, err := c.creds(&cred.TLS).Explain(ctx, connect.NewRequest(&xosv1.ExplainRequest{}))
	if err != nil || why.Msg.Allowed || !strings.Contains(strings.Join(why.Msg.Lines, "\n"), "left") {
		t.Errorf("explained as %v, %v", why, err)
	}
	if _, err := c.login("alice@physics", "password correct horse battery", ""); !xos.Is(err, xos.Permission) {
		t.Errorf("login after removal: %v", err)
	}
	if _, err := c.vos.AddMember(ctx, connect.NewRequest(&xosv1.AddMemberRequest{Vo: "physics", User: "alice"})); err != nil {
		t.Fatal(err)
	}
	if err := renew(); !xos.Is(err, xos.Permission) {
		t.Errorf("the old certificate of a member added again: %v", err)
	}
	if cred, err = c.login("alice@physics", "password correct horse battery", ""); err != nil {
		t.Fatal(err)
	}
	if err := renew(); err != nil {
		t.Errorf("the new certificate of a member added again: %v", err)
	}
	if _, err := c.creds(&cred.TLS).Revoke(ctx, connect.NewRequest(&xosv1.RevokeRequest{})); err != nil {
		t.Fatal(err)
	}
	if err := renew(); !xos.Is(err, xos.Permission) {
		t.Errorf("after logout: %v", err)
	}
}

func TestRootMachines(t *testing.T) {
	c := start(t, nil)
	ctx := context.Background()
	token := c.joinToken()
	cfg := machine.JoinConfig{Core: c.api, Token: machine.Token(token), Name: "node1", Service: vom.ServiceNode, Addresses: []net.IP{}}
	if _, err := machine.Join(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Join(ctx, cfg); !xos.Is(err, xos.Permission) {
		t.Errorf("a join token's second use: %v", err)
	}
	other := cfg
	other.Token = machine.Token(token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("0", 64))
	if _, err := machine.Join(ctx, other); !xos.Is(err, xos.Permission) {
		t.Errorf("a core with another fingerprint: %v", err)
	}
	cfg.Token = machine.Token(c.joinToken())
	if _, err := machine.Join(ctx, cfg); !xos.Is(err, xos.Exists) {
		t.Errorf("another machine of the same name: %v", err)
	}
	remote := xosv1connect.NewMachinesClient(rpc.TLSClient(machine.CoreTLS(c.roots, nil)), "https://"+c.api, rpc.ClientOptions()...)
	if _, err := remote.CreateJoinToken(ctx, connect.NewRequest(&xosv1.CreateJoinTokenRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("a join token over the network: %v", err)
	}
	if _, err := remote.Bundle(ctx, connect.NewRequest(&xosv1.BundleRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("a bundle without a certificate: %v", err)
	}
}

func TestRootDelegation(t *testing.T) {
	c := start(t, nil)
	ctx := context.Background()
	cred, err := c.login("alice@physics", c.member("alice", "physics"), "")
	if err != nil {
		t.Fatal(err)
	}
	node1, node2 := c.node("node1"), c.node("node2")
	if _, err := c.creds(&cred.TLS).Delegate(ctx, connect.NewRequest(&xosv1.DelegateRequest{Csr: newCSR(t), SshCertificate: cred.SSH.Marshal()})); !xos.Is(err, xos.Invalid) {
		t.Errorf("a user delegates to herself: %v", err)
	}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.creds(&node1).Delegate(ctx, connect.NewRequest(&xosv1.DelegateRequest{Csr: csr, SshCertificate: cred.SSH.Marshal()}))
	if err != nil {
		t.Fatal(err)
	}
	delegated := tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key}
	leaf, err := x509.ParseCertificate(resp.Msg.X509Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	id, err := credential.FromX509(leaf)
	if err != nil || id.Node != "node1" || id.NotAfter.After(cred.NotAfter) {
		t.Errorf("delegated %+v, %v", id, err)
	}
	if _, err := c.creds(&delegated).Renew(ctx, connect.NewRequest(&xosv1.RenewRequest{Csr: newCSR(t)})); !xos.Is(err, xos.Permission) {
		t.Errorf("a delegated credential renews itself: %v", err)
	}
	content := &xosv1.OrderContent{Job: "core-1", Account: &xosv1.Attributes{User: "alice", Vo: "physics"},
		SubmitNode: "node1", ExecutionNode: "node2", NotAfter: timestamppb.New(time.Now().Add(time.Minute)), SpecSha256: order.SpecHash([]byte("spec"))}
	signed, err := order.Sign(content, delegated)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(node tls.Certificate, s order.Signed) (*connect.Response[xosv1.DelegateResponse], error) {
		return c.creds(&node).Delegate(ctx, connect.NewRequest(&xosv1.DelegateRequest{Csr: newCSR(t), Order: s.Content, OrderSignature: s.Signature, OrderChain: s.Chain}))
	}
	got, err := ask(node2, signed)
	if err != nil {
		t.Fatal(err)
	}
	if until := got.Msg.Until.AsTime(); got.Msg.NotAfter.AsTime().After(until) || until.After(cred.NotAfter) {
		t.Errorf("valid until %v, and renewed until %v, longer than her own credential", got.Msg.NotAfter.AsTime(), until)
	}
	if _, err := ask(node1, signed); !xos.Is(err, xos.Permission) {
		t.Errorf("an order for another machine: %v", err)
	}
	forged := signed
	forged.Content = append([]byte{}, signed.Content...)
	forged.Content[3] ^= 1
	if _, err := ask(node2, forged); err == nil {
		t.Error("a tampered order was taken")
	}
}

func TestRootStateSurvives(t *testing.T) {
	dir := t.TempDir()
	keep := func(c *config) { c.State = dir }
	var before string
	t.Run("first", func(t *testing.T) {
		c := start(t, keep)
		before = c.fingerprint()
		c.member("alice", "physics")
	})
	t.Run("again", func(t *testing.T) {
		c := start(t, keep)
		if after := c.fingerprint(); after != before {
			t.Errorf("root changed from %s to %s", before, after)
		}
		list, err := c.vos.ListUsers(context.Background(), connect.NewRequest(&xosv1.ListUsersRequest{}))
		if err != nil || len(list.Msg.Users) != 1 {
			t.Errorf("users %v, %v", list, err)
		}
	})
	if err := os.Remove(filepath.Join(dir, "ca", "issuer.key")); err != nil {
		t.Fatal(err)
	}
	cfg, _ := defaults()
	cfg.State, cfg.Socket = dir, filepath.Join(t.TempDir(), "s")
	if err := run(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "issuer.key") {
		t.Errorf("with a lost key: %v", err)
	}
}
