package cda_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/order"
	"github.com/xtreemos/xos/vom/vomtest"
)

func TestIssueRefusals(t *testing.T) {
	g := vomtest.Start(t)
	token := g.Member("alice@physics")
	bobs := g.Member("bob@physics")
	csr, _ := vomtest.Request(t)
	stolen := bytes.Clone(csr)
	stolen[len(stolen)-5] ^= 4
	for _, tt := range []struct {
		name string
		req  *xosv1.IssueRequest
		want xos.Kind
	}{
		{"nothing", &xosv1.IssueRequest{}, xos.Invalid},
		{"no proof", &xosv1.IssueRequest{Account: "alice@physics", Csr: csr}, xos.Invalid},
		{"root", &xosv1.IssueRequest{Account: "root@physics", Token: token, Csr: csr}, xos.Invalid},
		{"a newline", &xosv1.IssueRequest{Account: "alice\n@physics", Token: token, Csr: csr}, xos.Invalid},
		{"a NUL", &xosv1.IssueRequest{Account: "alice@physics\x00", Token: token, Csr: csr}, xos.Invalid},
		{"a colon", &xosv1.IssueRequest{Account: "alice:@physics", Token: token, Csr: csr}, xos.Invalid},
		{"200 letters", &xosv1.IssueRequest{Account: strings.Repeat("a", 200) + "@physics", Token: token, Csr: csr}, xos.Invalid},
		{"no VO", &xosv1.IssueRequest{Account: "alice", Token: token, Csr: csr}, xos.Invalid},
		{"two VOs", &xosv1.IssueRequest{Account: "alice@physics@chemistry", Token: token, Csr: csr}, xos.Invalid},
		{"no key", &xosv1.IssueRequest{Account: "alice@physics", Token: token}, xos.Invalid},
		{"another's key", &xosv1.IssueRequest{Account: "alice@physics", Token: token, Csr: stolen}, xos.Permission},
		{"another's token", &xosv1.IssueRequest{Account: "alice@physics", Token: bobs, Csr: csr}, xos.Permission},
	} {
		if _, err := g.CDA.Issue(g.Stranger(), connect.NewRequest(tt.req)); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if r := g.Audit.Last(); r.Allowed || r.Action != "issue" || r.Actor != "192.0.2.1:999" || r.Reason == "" {
			t.Errorf("%s: on record is %+v", tt.name, r)
		}
	}
	resp, _ := g.Issue("alice@physics", token) // no refusal spent it
	if r := g.Audit.Last(); !r.Allowed || r.User != "alice" || r.VO != "physics" || resp.Attributes.User != "alice" {
		t.Errorf("on record is %+v", r)
	}
	for _, r := range []string{token, bobs} {
		if strings.Contains(fmt.Sprint(g.Audit.Last()), r) {
			t.Error("a secret is on record")
		}
	}
	g.Audit.Fail.Store(true)
	if _, err := g.CDA.Issue(g.Stranger(), connect.NewRequest(&xosv1.IssueRequest{Account: "bob@physics", Token: bobs, Csr: csr})); !xos.Is(err, xos.Unavailable) {
		t.Errorf("without a record: %v", err)
	}
}

// A token asked with at the same time serves once.
func TestTokenServesOnce(t *testing.T) {
	g := vomtest.Start(t)
	token := g.Member("alice@physics")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 6 {
		csr, _ := vomtest.Request(t)
		wg.Go(func() {
			_, err := g.CDA.Issue(g.Stranger(), connect.NewRequest(&xosv1.IssueRequest{Account: "alice@physics", Token: token, Csr: csr}))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !xos.Is(err, xos.Permission) && !xos.Is(err, xos.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("it served %d times", won)
	}
}

// Who may have what is asked for with a certificate, and who may not.
func TestBearers(t *testing.T) {
	g := vomtest.Start(t)
	_, alice := g.Issue("alice@physics", g.Member("alice@physics"))
	_, bob := g.Issue("bob@physics", g.Member("bob@physics"))
	_, carol := g.Issue("carol@physics", g.Member("carol@physics"))
	node := g.Join("node1", vom.ServiceNode)
	storage := g.Join("store1", vom.ServiceStorage)
	if _, err := g.CDA.Revoke(g.As(credtest.Chain(t, carol)), connect.NewRequest(&xosv1.RevokeRequest{})); err != nil {
		t.Fatal(err)
	}
	if err := g.Records.RemoveMember(t.Context(), xos.Account{User: "bob", VO: "physics"}, "left", "by root"); err != nil {
		t.Fatal(err)
	}
	csr, _ := vomtest.Request(t)
	renew := func(ctx context.Context) error {
		_, err := g.CDA.Renew(ctx, connect.NewRequest(&xosv1.RenewRequest{Csr: csr}))
		return err
	}
	foreign := credtest.New(t)
	chain := func(c tls.Certificate) context.Context { return g.As(credtest.Chain(t, c)) }
	for _, tt := range []struct {
		name string
		ctx  context.Context
		want xos.Kind
	}{
		{"a stranger", g.Stranger(), xos.Permission},
		{"root", g.Root(), xos.Permission},
		{"removed", chain(bob), xos.Permission},
		{"revoked by herself", chain(carol), xos.Permission},
		{"a machine", chain(node), xos.Invalid},
		{"a foreign authority's", chain(foreign.X509User("alice@physics")), xos.Permission},
		{"a leaf alone", g.As(credtest.Chain(t, alice)[:1]), xos.Permission},
		{"the authority's own", g.As(credtest.Chain(t, alice)[1:]), xos.Permission},
		{"alice", chain(alice), 0},
	} {
		if err := renew(tt.ctx); tt.want == 0 && err != nil || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	g.Pass(-2 * time.Minute)
	if err := renew(chain(alice)); !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "only from") {
		t.Errorf("not yet valid: %v", err)
	}
	g.Pass(2*time.Minute + 13*time.Hour)
	if err := renew(chain(alice)); !xos.Is(err, xos.Expired) {
		t.Errorf("expired: %v", err)
	}
	g.Pass(-13 * time.Hour)

	explain := func(ctx context.Context, account, serial string) error {
		_, err := g.CDA.Explain(ctx, connect.NewRequest(&xosv1.ExplainRequest{Account: account, Serial: serial}))
		return err
	}
	for _, tt := range []struct {
		name            string
		ctx             context.Context
		account, serial string
		want            xos.Kind
	}{
		{"a stranger", g.Stranger(), "alice@physics", "", xos.Permission},
		{"alice of herself", chain(alice), "", "", 0},
		{"alice of bob", chain(alice), "bob@physics", "", xos.Permission},
		{"alice of another's certificate", chain(alice), "", bob.Leaf.SerialNumber.String(), xos.Permission},
		{"who was removed, of himself", chain(bob), "", "", 0},
		{"a machine of anybody", chain(storage), "bob@physics", "", 0},
		{"a machine of nobody", chain(node), "", "", xos.Invalid},
		{"a foreign one", chain(foreign.X509User("alice@physics")), "", "", xos.Permission},
		{"root of a certificate", g.Root(), "", bob.Leaf.SerialNumber.String(), 0},
		{"root of a certificate of another", g.Root(), "alice@physics", bob.Leaf.SerialNumber.String(), xos.NotFound},
		{"root of nonsense", g.Root(), "", "1\n2", xos.Invalid},
	} {
		if err := explain(tt.ctx, tt.account, tt.serial); tt.want == 0 && err != nil || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("explain, %s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDelegate(t *testing.T) {
	g := vomtest.Start(t)
	issued, _ := g.Issue("alice@physics", g.Member("alice@physics"))
	line, err := credential.ParseSSH([]byte(issued.SshCertificate))
	if err != nil {
		t.Fatal(err)
	}
	cert := line.Marshal()
	node1, node2 := g.Join("node1", vom.ServiceNode), g.Join("node2", vom.ServiceNode)
	storage := g.Join("store1", vom.ServiceStorage)
	delegate := func(as tls.Certificate, m *xosv1.DelegateRequest) (tls.Certificate, error) {
		csr, key := vomtest.Request(t)
		m.Csr = csr
		resp, err := g.CDA.Delegate(g.As(credtest.Chain(t, as)), connect.NewRequest(m))
		if err != nil {
			return tls.Certificate{}, err
		}
		return tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key}, nil
	}
	held, err := delegate(node1, &xosv1.DelegateRequest{SshCertificate: cert})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(with tls.Certificate, edit func(*xosv1.OrderContent)) *xosv1.DelegateRequest {
		o := &xosv1.OrderContent{Job: "core-1", Account: &xosv1.Attributes{User: "alice", Vo: "physics"}, SubmitNode: "node1",
			ExecutionNode: "node2", NotAfter: timestamppb.New(g.Now().Add(time.Minute))}
		if edit != nil {
			edit(o)
		}
		s, err := order.Sign(o, with)
		if err != nil {
			t.Fatal(err)
		}
		return &xosv1.DelegateRequest{Order: s.Content, OrderSignature: s.Signature, OrderChain: s.Chain}
	}
	both := sign(held, nil)
	both.SshCertificate = cert
	foreign, _ := credtest.New(t).SSHUser("alice@physics")
	for _, tt := range []struct {
		name string
		as   tls.Certificate
		m    *xosv1.DelegateRequest
		want xos.Kind
	}{
		{"nothing shown", node1, &xosv1.DelegateRequest{}, xos.Invalid},
		{"both shown", node2, both, xos.Invalid},
		{"storage", storage, &xosv1.DelegateRequest{SshCertificate: cert}, xos.Permission},
		{"a plain key", node1, &xosv1.DelegateRequest{SshCertificate: line.Key.Marshal()}, xos.Invalid},
		{"a foreign certificate", node1, &xosv1.DelegateRequest{SshCertificate: foreign.Marshal()}, xos.Permission},
		{"an order for another machine", node1, sign(held, nil), xos.Permission},
		{"a late order", node2, sign(held, func(o *xosv1.OrderContent) { o.NotAfter = timestamppb.New(g.Now().Add(-time.Second)) }), xos.Expired},
		{"an order without end", node2, sign(held, func(o *xosv1.OrderContent) { o.NotAfter = nil }), xos.Expired},
		{"an order of another account", node2, sign(held, func(o *xosv1.OrderContent) { o.Account.User = "bob" }), xos.Permission},
		{"an order of no account", node2, sign(held, func(o *xosv1.OrderContent) { o.Account = nil }), xos.Permission},
		{"an order of another machine", node2, sign(held, func(o *xosv1.OrderContent) { o.SubmitNode = "node2" }), xos.Permission},
		{"an order of a machine's own", node2, sign(node1, nil), xos.Invalid},
		{"a good one", node2, sign(held, nil), 0},
	} {
		if _, err := delegate(tt.as, tt.m); tt.want == 0 && err != nil || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// With the end of hers, all that came of it ends.
	last, err := delegate(node2, sign(held, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Verifier.X509(credtest.Chain(t, last)); err != nil {
		t.Error(err)
	}
	leaf := vomtest.Parse(t, issued.X509Chain)
	if _, err := g.CDA.Revoke(g.As(leaf), connect.NewRequest(&xosv1.RevokeRequest{})); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]tls.Certificate{"first": held, "second": last} {
		if _, err := g.Verifier.X509(credtest.Chain(t, c)); !xos.Is(err, xos.Permission) {
			t.Errorf("the %s delegated one still serves: %v", name, err)
		}
	}
}

// Each byte of a certificate, changed, makes it worthless: no identity comes
// of it, neither hers nor another's.
func TestTamperedCertificates(t *testing.T) {
	g := vomtest.Start(t)
	issued, _ := g.Issue("alice@physics", g.Member("alice@physics", "analyst"))
	chain := vomtest.Parse(t, issued.X509Chain)
	refused := func(err error) bool {
		return xos.Is(err, xos.Permission) || xos.Is(err, xos.Invalid) || xos.Is(err, xos.Expired)
	}
	der := issued.X509Chain[0]
	parsed := 0
	for i := range der {
		bad := bytes.Clone(der)
		bad[i] ^= 1 << (i % 8)
		c, err := x509.ParseCertificate(bad)
		if err != nil {
			continue
		}
		parsed++
		if id, err := g.Verifier.X509(append([]*x509.Certificate{c}, chain[1:]...)); !refused(err) {
			t.Fatalf("byte %d changed: %+v, %v", i, id, err)
		}
	}
	good, err := credential.ParseSSH([]byte(issued.SshCertificate))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Verifier.SSH(good, "alice@physics"); err != nil {
		t.Fatal(err)
	}
	wire := good.Marshal()
	for i := range wire {
		bad := bytes.Clone(wire)
		bad[i] ^= 1 << (i % 8)
		key, err := ssh.ParsePublicKey(bad)
		if err != nil {
			continue
		}
		parsed++
		if c, ok := key.(*ssh.Certificate); ok {
			if id, err := g.Verifier.SSH(c, "alice@physics"); !refused(err) {
				t.Fatalf("byte %d changed: %+v, %v", i, id, err)
			}
		}
	}
	if parsed < 300 {
		t.Errorf("only %d changed certificates could be read at all", parsed)
	}
	for _, principal := range []string{"bob@physics", "root", "", "alice", "alice@chemistry", "ALICE@physics"} {
		if _, err := g.Verifier.SSH(good, principal); !xos.Is(err, xos.Permission) {
			t.Errorf("as %q: %v", principal, err)
		}
	}
}
