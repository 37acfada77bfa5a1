package service_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session/service"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// core delegates credentials over mutual TLS, as xos-core does.
type core struct {
	xosv1connect.UnimplementedCredentialsHandler
	t      *testing.T
	ca     *credtest.Authority
	addr   string
	shared *http.Client

	mu     sync.Mutex
	down   bool
	issues int
	// How it delegates: life of one credential (0: the certificate's), what it
	// refuses, and what it was asked.
	life   time.Duration
	refuse func(*xosv1.DelegateRequest) error
	noSSO  string
	until  map[string]time.Time // of its delegated credentials, by serial
	asks   []string
}

// delegated gives what kind of evidence it was shown so far.
func (c *core) delegated() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asks)
}

func (c *core) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func newCore(t *testing.T, ca *credtest.Authority) *core {
	c := &core{t: t, ca: ca}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewCredentialsHandler(c, rpc.ServerOptions(slog.New(slog.DiscardHandler))...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	own := ca.Machine("core", vom.ServiceCore)
	go func() {
		defer close(done)
		rpc.ServeTLS(ctx, l, ca.Verifier().ServerTLS(credtest.Show(own), true), mux)
	}()
	t.Cleanup(func() { c.shared.CloseIdleConnections(); cancel(); <-done })
	node := ca.Machine("node1", vom.ServiceNode)
	c.shared = rpc.TLSClient(ca.Verifier().ClientTLS(credtest.Show(node), vom.ServiceCore))
	return c
}

func (c *core) client() service.Certifier {
	return xosv1connect.NewCredentialsClient(c.shared, "https://"+c.addr, rpc.ClientOptions()...)
}

func (c *core) setDown(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = v
}

// asked is how many passwords the core has seen.
func (c *core) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.issues
}

func (c *core) Delegate(ctx context.Context, req *connect.Request[xosv1.DelegateRequest]) (*connect.Response[xosv1.DelegateResponse], error) {
	m, err := c.ca.Verifier().Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kind, mode := "certificate", "vouched"
	switch {
	case len(req.Msg.HeldChain) > 0:
		kind = "held"
	case len(req.Msg.Consent) > 0:
		kind, mode = "consent", "signed"
	}
	c.asks = append(c.asks, kind)
	if c.down {
		return nil, xos.Errorf(xos.Unavailable, "the core is down")
	}
	if c.refuse != nil {
		if err := c.refuse(req.Msg); err != nil {
			return nil, err
		}
	}
	csr, err := x509.ParseCertificateRequest(req.Msg.Csr)
	if err != nil {
		return nil, err
	}
	var id vom.Identity
	var until time.Time
	if kind == "held" {
		leaf, err := x509.ParseCertificate(req.Msg.HeldChain[0])
		if err != nil {
			return nil, err
		}
		if id, err = credential.FromX509(leaf); err != nil {
			return nil, err
		}
		if !leaf.PublicKey.(ed25519.PublicKey).Equal(csr.PublicKey) {
			return nil, xos.Errorf(xos.Permission, "on another key")
		}
		until = c.until[id.Serial]
	} else {
		cert, err := credential.ParseSSH(req.Msg.SshCertificate)
		if err != nil {
			return nil, err
		}
		if id, err = credential.FromSSH(cert); err != nil {
			return nil, err
		}
		until = id.NotAfter
		id.Source = id.Serial
	}
	issued, end := time.Now(), until
	if c.life > 0 && issued.Add(c.life).Before(until) {
		end = issued.Add(c.life)
	}
	if c.life == 0 {
		issued = id.Issued
	}
	opts := []credtest.Option{credtest.Groups(id.Groups...), credtest.Home(id.Home), credtest.Source(id.Source), credtest.Issued(issued, end.Sub(issued))}
	// Only the public half of the key is known here, and needed.
	key := append(make(ed25519.PrivateKey, ed25519.SeedSize), csr.PublicKey.(ed25519.PublicKey)...)
	out := c.ca.Delegated(id.Account.String(), m.Node, append(opts, credtest.Key(key))...)
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	c.until[out.Leaf.SerialNumber.String()] = until
	resp := &xosv1.DelegateResponse{X509Chain: out.Certificate, Until: timestamppb.New(until), Mode: mode, Depth: 1, SshRefused: c.noSSO}
	if len(req.Msg.SshCsr) > 0 && c.noSSO == "" {
		on, err := x509.ParseCertificateRequest(req.Msg.SshCsr)
		if err != nil {
			return nil, err
		}
		cert, _ := c.ca.SSHSession(id.Account.String(), m.Node, []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			append(opts, credtest.PublicKey(on.PublicKey.(ed25519.PublicKey)))...)
		resp.SshCertificate = string(ssh.MarshalAuthorizedKey(cert))
	}
	return connect.NewResponse(resp), nil
}
