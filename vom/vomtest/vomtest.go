// Package vomtest makes whole VO management for tests: real records in memory,
// a real authority in a directory of the test's, both certification services,
// and, where it is asked for, a server on loopback.
package vomtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/cda"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/rca"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

// Grid is VO management with a clock of the test's, which starts at the
// system's time.
type Grid struct {
	T         testing.TB
	DB        kv.Store
	Dir       string // the authority's
	Records   *xvoms.Records
	Authority *authority.Authority
	Verifier  *credential.Verifier
	CDA       *cda.Service
	RCA       *rca.Service
	Audit     *Ledger

	ahead atomic.Int64
}

// Ledger keeps an audit log in memory. With Fail it can write nothing.
type Ledger struct {
	mu      sync.Mutex
	records []audit.Record
	Fail    atomic.Bool
}

// Note implements cda.Audit.
func (l *Ledger) Note(ctx context.Context, r audit.Record) (line bool, err error) {
	err = l.Append(ctx, r)
	return err == nil, err
}

// Append implements xvoms.Audit.
func (l *Ledger) Append(_ context.Context, r audit.Record) error {
	if l.Fail.Load() {
		return xos.Errorf(xos.Unavailable, "disk full")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// Last gives the newest record.
func (l *Ledger) Last() audit.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) == 0 {
		return audit.Record{}
	}
	return l.records[len(l.records)-1]
}

// Start makes a grid without users and machines.
func Start(t testing.TB) *Grid {
	t.Helper()
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	g := &Grid{T: t, DB: db, Dir: filepath.Join(t.TempDir(), "ca"), Audit: &Ledger{}}
	if g.Authority, err = authority.Open(g.Dir, db, g.Now); err != nil {
		t.Fatal(err)
	}
	g.Records, err = xvoms.New(t.Context(), xvoms.Config{Trust: g.Authority.Trust(), Now: g.Now}, db, nil, vops.Check)
	if err != nil {
		t.Fatal(err)
	}
	g.Verifier = credential.NewVerifier(g.Records.Bundle, g.Now)
	policy, err := vops.New(g.Records.Bundle, vops.Site{VOs: []xos.VOName{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	g.CDA = cda.New(g.Records, g.Authority, g.Verifier, g.Audit, cda.Delegating{Policy: policy}, g.Now, log)
	g.RCA = rca.New(g.Records, g.Authority, g.Verifier, g.Audit, "core", log)
	return g
}

// Now is the grid's time.
func (g *Grid) Now() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }

// Pass lets time go by.
func (g *Grid) Pass(d time.Duration) { g.ahead.Add(int64(d)) }

// Root is a call by the administrator of the core's machine.
func (g *Grid) Root() context.Context {
	return rpc.WithPeer(g.T.Context(), rpc.Peer{Unix: true})
}

// Stranger is a call by somebody without a certificate.
func (g *Grid) Stranger() context.Context {
	return rpc.WithPeer(g.T.Context(), rpc.Peer{UID: ^uint32(0), GID: ^uint32(0), Address: "192.0.2.1:999"})
}

// As is a call by whoever shows a certificate.
func (g *Grid) As(chain []*x509.Certificate) context.Context {
	return rpc.WithPeer(g.T.Context(), rpc.Peer{UID: ^uint32(0), GID: ^uint32(0), Address: "192.0.2.2:999", Chain: chain})
}

// Request makes a key and a request to certify it.
func Request(t testing.TB, edit ...func(*x509.CertificateRequest)) ([]byte, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whoever"}}
	for _, e := range edit {
		e(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// Parse gives a chain as a peer sees it.
func Parse(t testing.TB, ders [][]byte) (chain []*x509.Certificate) {
	t.Helper()
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

// Member makes a VO where it is new, a user and her membership, and gives her
// enrolment token.
func (g *Grid) Member(account string, roles ...xos.RoleName) string {
	g.T.Helper()
	a, err := xos.ParseAccount(account)
	if err != nil {
		g.T.Fatal(err)
	}
	ctx := g.T.Context()
	if err := g.Records.CreateVO(ctx, a.VO); err != nil && !xos.Is(err, xos.Exists) {
		g.T.Fatal(err)
	}
	token, err := g.Records.CreateUser(ctx, a.User, "", "")
	if err != nil {
		g.T.Fatal(err)
	}
	if _, err := g.Records.AddMember(ctx, a, nil, roles, "by root"); err != nil {
		g.T.Fatal(err)
	}
	return token.Secret
}

// Issue certifies a member with her token.
func (g *Grid) Issue(account, token string) (*xosv1.IssueResponse, tls.Certificate) {
	g.T.Helper()
	csr, key := Request(g.T)
	resp, err := g.CDA.Issue(g.Stranger(), connect.NewRequest(&xosv1.IssueRequest{Account: account, Token: token, Csr: csr}))
	if err != nil {
		g.T.Fatal(err)
	}
	return resp.Msg, tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key, Leaf: Parse(g.T, resp.Msg.X509Chain)[0]}
}

// JoinToken makes a token for so many machines.
func (g *Grid) JoinToken(uses int64) string {
	g.T.Helper()
	resp, err := g.RCA.CreateJoinToken(g.Root(), connect.NewRequest(&xosv1.CreateJoinTokenRequest{Uses: uses}))
	if err != nil {
		g.T.Fatal(err)
	}
	return resp.Msg.Token
}

// Join certifies a machine.
func (g *Grid) Join(name string, service vom.Service) tls.Certificate {
	g.T.Helper()
	csr, key := Request(g.T)
	resp, err := g.RCA.Join(g.Stranger(), connect.NewRequest(&xosv1.JoinRequest{Token: g.JoinToken(1), Name: name, Service: string(service), Csr: csr}))
	if err != nil {
		g.T.Fatal(err)
	}
	return tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key, Leaf: Parse(g.T, resp.Msg.X509Chain)[0]}
}

// Serve serves both certification services on loopback, as a core does, until
// the test ends, and gives the address. wrap, where it is not nil, may change
// the machines' service.
func (g *Grid) Serve(wrap func(xosv1connect.MachinesHandler) xosv1connect.MachinesHandler) string {
	g.T.Helper()
	der, key := Request(g.T)
	csr, pub, err := authority.ParseRequest(der)
	if err != nil {
		g.T.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		g.T.Fatal(err)
	}
	grant, err := g.Records.CertifyCore(g.T.Context(), vom.MachineClaim{Node: "core", Service: vom.ServiceCore, Key: sha256.Sum256(spki), Fingerprint: credential.Fingerprint(pub)})
	if err != nil {
		g.T.Fatal(err)
	}
	chain, err := g.Authority.Machine(g.T.Context(), csr, grant)
	if err != nil {
		g.T.Fatal(err)
	}
	own := &tls.Certificate{Certificate: chain, PrivateKey: key}
	cfg := g.Verifier.ServerTLS(func() (*tls.Certificate, error) { return own, nil }, false)
	cfg.VerifyConnection = nil // the handlers verify, as on a core
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.T.Fatal(err)
	}
	mux := http.NewServeMux()
	opts := rpc.ServerOptions(slog.New(slog.DiscardHandler))
	machines := xosv1connect.MachinesHandler(g.RCA)
	if wrap != nil {
		machines = wrap(machines)
	}
	mux.Handle(xosv1connect.NewCredentialsHandler(g.CDA, opts...))
	mux.Handle(xosv1connect.NewMachinesHandler(machines, opts...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpc.ServeTLS(ctx, l, cfg, mux) }()
	g.T.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			g.T.Error(err)
		}
	})
	return l.Addr().String()
}
