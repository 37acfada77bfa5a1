package cda_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/order"
	"github.com/xtreemos/xos/vom/vomtest"
)

// delegations is a grid with alice's login and machines that ask for her.
type delegations struct {
	*vomtest.Grid
	alice tls.Certificate
	ssh   *ssh.Certificate
	nodes map[string]tls.Certificate
}

func newDelegations(t *testing.T) *delegations {
	d := &delegations{Grid: vomtest.Start(t), nodes: map[string]tls.Certificate{}}
	issued, own := d.Issue("alice@physics", d.Member("alice@physics", "analyst"))
	d.alice = own
	var err error
	if d.ssh, err = credential.ParseSSH([]byte(issued.SshCertificate)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"node1", "node2", "node3", "node4", "node5"} {
		d.nodes[n] = d.Join(n, vom.ServiceNode)
	}
	return d
}

// on is a call by a machine.
func (d *delegations) on(node string) context.Context {
	chain := credtest.Chain(d.T, d.nodes[node])
	leaf := *chain[0]
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(192, 0, 2, 10)}
	return rpc.WithPeer(d.T.Context(), rpc.Peer{UID: ^uint32(0), Address: "192.0.2.20:999", Chain: append([]*x509.Certificate{&leaf}, chain[1:]...)})
}

// got is what a machine holds.
type got struct {
	*xosv1.DelegateResponse
	cert tls.Certificate
	ssh  *ssh.Certificate
}

// ask asks on a key, a new one if it is nil.
func (d *delegations) ask(node string, key ed25519.PrivateKey, m *xosv1.DelegateRequest) (got, error) {
	d.T.Helper()
	if key == nil {
		_, key = vomtest.Request(d.T)
	}
	m.Csr = request(d.T, key)
	ctx := d.on(node)
	resp, err := d.CDA.Delegate(ctx, connect.NewRequest(m))
	if err != nil {
		return got{}, err
	}
	g := got{DelegateResponse: resp.Msg, cert: tls.Certificate{Certificate: resp.Msg.X509Chain, PrivateKey: key}}
	if resp.Msg.SshCertificate != "" {
		if g.ssh, err = credential.ParseSSH([]byte(resp.Msg.SshCertificate)); err != nil {
			d.T.Fatal(err)
		}
	}
	return g, nil
}

func request(t testing.TB, key ed25519.PrivateKey) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func (d *delegations) policy(text string) {
	d.T.Helper()
	if err := d.Records.SetPolicy(d.T.Context(), "physics", text); err != nil {
		d.T.Fatal(err)
	}
}

func sshCSR(t testing.TB) []byte {
	csr, _ := vomtest.Request(t)
	return csr
}

// A delegated credential is short, is renewed on its key by its machine alone,
// and ends with the login's certificate.
func TestRenewHeld(t *testing.T) {
	d := newDelegations(t)
	first, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal()})
	if err != nil {
		t.Fatal(err)
	}
	end := time.Unix(int64(d.ssh.ValidBefore), 0)
	if left := first.NotAfter.AsTime().Sub(d.Now()); left > time.Hour || left < 50*time.Minute || !first.Until.AsTime().Equal(end) || first.Mode != "vouched" || first.Depth != 1 {
		t.Errorf("it lasts %v, of %v: %v", left, first.Until.AsTime(), first.DelegateResponse)
	}
	key := first.cert.PrivateKey.(ed25519.PrivateKey)
	renew := func(node string, key ed25519.PrivateKey, chain [][]byte) (got, error) {
		return d.ask(node, key, &xosv1.DelegateRequest{HeldChain: chain})
	}
	if _, err := renew("node2", key, first.X509Chain); !xos.Is(err, xos.Permission) {
		t.Errorf("by another machine: %v", err)
	}
	if _, err := renew("node1", nil, first.X509Chain); !xos.Is(err, xos.Permission) {
		t.Errorf("on another key: %v", err)
	}
	if _, err := renew("node1", d.alice.PrivateKey.(ed25519.PrivateKey), d.alice.Certificate); !xos.Is(err, xos.Permission) {
		t.Errorf("of her own certificate: %v", err)
	}
	if _, err := renew("node1", key, [][]byte{{1, 2, 3}}); !xos.Is(err, xos.Invalid) {
		t.Errorf("of no certificate: %v", err)
	}
	held := first
	for held.NotAfter.AsTime().Before(end) {
		d.Pass(held.NotAfter.AsTime().Sub(d.Now()) - time.Minute)
		next, err := renew("node1", key, held.X509Chain)
		if err != nil {
			t.Fatalf("at %v of %v: %v", d.Now(), end, err)
		}
		if next.NotAfter.AsTime().After(end) || !next.NotAfter.AsTime().After(held.NotAfter.AsTime()) || next.Depth != 1 {
			t.Fatalf("renewed to %v, of %v", next.NotAfter.AsTime(), end)
		}
		held = next
	}
	if again, err := renew("node1", key, held.X509Chain); err != nil || again.NotAfter.AsTime().After(end) {
		t.Errorf("past her certificate: %v %v", again.NotAfter.AsTime(), err)
	}
	d.Pass(end.Sub(d.Now()) + time.Second)
	if _, err := renew("node1", key, held.X509Chain); !xos.Is(err, xos.Expired) {
		t.Errorf("after its end: %v", err)
	}
}

// The VO's policy and membership decide at each renewal.
func TestRenewalAsksAgain(t *testing.T) {
	d := newDelegations(t)
	d.policy(`@validity("10m") permit (principal, action, resource);`)
	held, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal(), SshCsr: sshCSR(t)})
	if err != nil || held.ssh == nil {
		t.Fatal(err)
	}
	if left := held.NotAfter.AsTime().Sub(d.Now()); left > 10*time.Minute {
		t.Errorf("the policy's validity is not kept: %v", left)
	}
	renew := func() (got, error) {
		return d.ask("node1", held.cert.PrivateKey.(ed25519.PrivateKey), &xosv1.DelegateRequest{HeldChain: held.X509Chain, SshCsr: sshCSR(t)})
	}
	d.policy(`permit (principal, action, resource); forbid (principal, action == Action::"sso", resource);`)
	if next, err := renew(); err != nil || next.ssh != nil || !strings.Contains(next.SshRefused, "forbids sso") {
		t.Errorf("sso forbidden: %v %v", next.DelegateResponse, err)
	}
	d.policy(`permit (principal, action, resource); forbid (principal, action == Action::"delegate", resource);`)
	if _, err := renew(); !xos.Is(err, xos.Permission) {
		t.Errorf("delegation forbidden: %v", err)
	}
	d.policy("")
	if _, err := renew(); err != nil {
		t.Error(err)
	}
	if err := d.Records.RemoveMember(t.Context(), xos.Account{User: "alice", VO: "physics"}, "left", "by root"); err != nil {
		t.Fatal(err)
	}
	if _, err := renew(); !xos.Is(err, xos.Permission) {
		t.Errorf("no member: %v", err)
	}
	if _, err := d.Verifier.SSH(held.ssh, "alice@physics"); !xos.Is(err, xos.Permission) {
		t.Errorf("the session's certificate of one removed: %v", err)
	}
}

// From machine to machine, as far as policy lets.
func TestHops(t *testing.T) {
	d := newDelegations(t)
	at := d.ssh
	for i, node := range []string{"node1", "node2", "node3", "node4"} {
		g, err := d.ask(node, nil, &xosv1.DelegateRequest{SshCertificate: at.Marshal(), SshCsr: sshCSR(t)})
		if err != nil || int(g.Depth) != i+1 {
			t.Fatalf("%s: %v %v", node, g.DelegateResponse, err)
		}
		if i+1 == vom.MaxDepth {
			if g.ssh != nil || g.SshRefused == "" {
				t.Errorf("%s goes on", node)
			}
			break
		}
		id, err := d.Verifier.SSH(g.ssh, "alice@physics")
		if err != nil || string(id.Node) != node || id.Source == "" || g.ssh.CriticalOptions["source-address"] != "192.0.2.10/32,192.0.2.20/32" {
			t.Fatalf("%s: %+v %v %v", node, id, g.ssh.CriticalOptions, err)
		}
		at = g.ssh
	}
	if _, err := d.ask("node5", nil, &xosv1.DelegateRequest{SshCertificate: at.Marshal()}); err != nil {
		t.Errorf("another fourth: %v", err)
	}
	d.policy(`permit (principal, action, resource); forbid (principal, action in [Action::"delegate", Action::"sso"], resource) when { context.depth > 1 };`)
	first, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal(), SshCsr: sshCSR(t)})
	if err != nil || first.ssh == nil {
		t.Fatal(err)
	}
	if _, err := d.ask("node2", nil, &xosv1.DelegateRequest{SshCertificate: first.ssh.Marshal()}); !xos.Is(err, xos.Permission) {
		t.Errorf("further than policy lets: %v", err)
	}
	// Her session's key can do nothing here that her own can.
	if _, err := d.CDA.Renew(d.As(credtest.Chain(t, first.cert)), connect.NewRequest(&xosv1.RenewRequest{Csr: sshCSR(t)})); !xos.Is(err, xos.Permission) {
		t.Errorf("a delegated one renewed as her own: %v", err)
	}
	if _, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal(), SshCsr: []byte("no request")}); !xos.Is(err, xos.Invalid) {
		t.Errorf("no request: %v", err)
	}
	_, key := vomtest.Request(t)
	if _, err := d.ask("node1", key, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal(), SshCsr: request(t, key)}); !xos.Is(err, xos.Invalid) {
		t.Errorf("one key for both: %v", err)
	}
}

// What a machine gave others ends with it, though their certificates do not
// show that they came through it.
func TestRemovedMachineOnTheWay(t *testing.T) {
	d := newDelegations(t)
	at := d.ssh
	held := map[string]got{}
	for _, node := range []string{"node1", "node2", "node3"} {
		g, err := d.ask(node, nil, &xosv1.DelegateRequest{SshCertificate: at.Marshal(), SshCsr: sshCSR(t)})
		if err != nil {
			t.Fatal(err)
		}
		held[node], at = g, g.ssh
	}
	way := held["node1"].ssh // what node2 was shown
	beside, err := d.ask("node4", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal()})
	if err != nil {
		t.Fatal(err)
	}
	renew := func(node string, g got) (got, error) {
		return d.ask(node, g.cert.PrivateKey.(ed25519.PrivateKey), &xosv1.DelegateRequest{HeldChain: g.X509Chain})
	}
	// A renewal does not forget the way.
	for _, node := range []string{"node1", "node2", "node3"} {
		d.Pass(time.Second)
		g, err := renew(node, held[node])
		if err != nil {
			t.Fatal(err)
		}
		held[node] = g
	}
	// Nor does one that is banned, for as long as it is; or its certificate.
	for _, ban := range []vom.Ban{{Kind: vom.BanNode, Subject: "node1"}, {Kind: vom.BanCertificate, Subject: strconv.FormatUint(way.Serial, 10)}} {
		if _, err := d.Records.AddBan(t.Context(), ban, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := renew("node2", held["node2"]); !xos.Is(err, xos.Permission) {
			t.Errorf("through a banned %s: %v", ban.Kind, err)
		}
		if err := d.Records.RemoveBan(t.Context(), ban.Kind, ban.Subject); err != nil {
			t.Fatal(err)
		}
		if _, err := renew("node2", held["node2"]); err != nil {
			t.Errorf("after the ban of a %s: %v", ban.Kind, err)
		}
	}
	if err := d.Records.RemoveMachine(t.Context(), "node1", "stolen", "by root"); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"node1", "node2", "node3"} {
		if _, err := renew(node, held[node]); !xos.Is(err, xos.Permission) {
			t.Errorf("%s: %v", node, err)
		}
	}
	if _, err := d.ask("node5", nil, &xosv1.DelegateRequest{SshCertificate: at.Marshal()}); !xos.Is(err, xos.Permission) {
		t.Errorf("from node3 on: %v", err)
	}
	if _, err := renew("node4", beside); err != nil {
		t.Errorf("who did not come through it: %v", err)
	}
}

// A job's credential opens no sessions, however it is renewed.
func TestJobsOpenNoSessions(t *testing.T) {
	d := newDelegations(t)
	d.policy("")
	first, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := order.Sign(&xosv1.OrderContent{Job: "core-1", Account: &xosv1.Attributes{User: "alice", Vo: "physics"}, SubmitNode: "node1",
		ExecutionNode: "node2", NotAfter: timestamppb.New(d.Now().Add(time.Minute))}, first.cert)
	if err != nil {
		t.Fatal(err)
	}
	job, err := d.ask("node2", nil, &xosv1.DelegateRequest{Order: s.Content, OrderSignature: s.Signature, OrderChain: s.Chain, SshCsr: sshCSR(t)})
	if err != nil || job.ssh != nil || job.Depth != 2 {
		t.Fatalf("%v %v", job.DelegateResponse, err)
	}
	again, err := d.ask("node2", job.cert.PrivateKey.(ed25519.PrivateKey), &xosv1.DelegateRequest{HeldChain: job.X509Chain, SshCsr: sshCSR(t)})
	if err != nil || again.ssh != nil || !strings.Contains(again.SshRefused, "job") {
		t.Errorf("renewed: %v %v", again.DelegateResponse, err)
	}
}

// Where a VO wants her signature, the machine's word does not do, nor does a
// signature for another machine, another key, or of another user.
func TestSigned(t *testing.T) {
	d := newDelegations(t)
	vouched, err := d.ask("node1", nil, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal()})
	if err != nil {
		t.Fatal(err)
	}
	d.policy(`permit (principal, action, resource); forbid (principal, action == Action::"delegate", resource) when { context.mode == "vouched" };`)
	who, err := d.Verifier.SSH(d.ssh, "alice@physics")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key ed25519.PrivateKey, node string, for_ ed25519.PrivateKey) *xosv1.DelegateRequest {
		content, err := consent.Terms(who, xos.NodeID(node), for_.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		sig := ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(key, consent.ToSign(content))})
		return &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal(), Consent: content, ConsentSignature: sig, SshCsr: sshCSR(t)}
	}
	_, key := vomtest.Request(t)
	_, other := vomtest.Request(t)
	_, bob := d.Issue("bob@physics", d.Member("bob@physics"))
	own, bobs := d.alice.PrivateKey.(ed25519.PrivateKey), bob.PrivateKey.(ed25519.PrivateKey)
	for _, tt := range []struct {
		name, node string
		key        ed25519.PrivateKey
		m          *xosv1.DelegateRequest
		want       xos.Kind
	}{
		{"vouched", "node1", key, &xosv1.DelegateRequest{SshCertificate: d.ssh.Marshal()}, xos.Permission},
		{"vouched before, renewed", "node1", vouched.cert.PrivateKey.(ed25519.PrivateKey), &xosv1.DelegateRequest{HeldChain: vouched.X509Chain}, xos.Permission},
		{"for another machine", "node1", key, sign(own, "node2", key), xos.Permission},
		{"replayed by another machine", "node2", key, sign(own, "node1", key), xos.Permission},
		{"for another key", "node1", other, sign(own, "node1", key), xos.Permission},
		{"by another user", "node1", key, sign(bobs, "node1", key), xos.Permission},
		{"without a certificate", "node1", key, &xosv1.DelegateRequest{HeldChain: vouched.X509Chain, Consent: []byte("x")}, xos.Invalid},
		{"signed", "node1", key, sign(own, "node1", key), 0},
		{"replayed by the machine", "node1", key, sign(own, "node1", key), 0},
	} {
		if g, err := d.ask(tt.node, tt.key, tt.m); tt.want == 0 && (err != nil || g.Mode != "signed") || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// What begins with her signature goes on with it.
	g, err := d.ask("node1", key, sign(own, "node1", key))
	if err != nil {
		t.Fatal(err)
	}
	if next, err := d.ask("node2", nil, &xosv1.DelegateRequest{SshCertificate: g.ssh.Marshal()}); err != nil || next.Mode != "signed" || next.Depth != 2 {
		t.Errorf("on node2: %v %v", next.DelegateResponse, err)
	}
	// A session's key signs no consent: it would be the machine that consents.
	content, _ := consent.Terms(who, "node2", other.Public().(ed25519.PublicKey))
	sig := ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(key, consent.ToSign(content))})
	if _, err := d.ask("node2", other, &xosv1.DelegateRequest{SshCertificate: g.ssh.Marshal(), Consent: content, ConsentSignature: sig}); !xos.Is(err, xos.Permission) {
		t.Errorf("by a session's key: %v", err)
	}
}
