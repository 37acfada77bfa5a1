package cda

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"net"
	"net/netip"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/order"
)

// DefaultValidity is that of a delegated credential.
const DefaultValidity = time.Hour

// Delegating is what bounds the credentials that machines get.
type Delegating struct {
	// Policy is the VOs'.
	Policy vom.Delegations
	// Validity of one credential; 0: DefaultValidity. It is renewed.
	Validity time.Duration
}

// claim is what a machine asks a credential with.
type claim struct {
	node   xos.NodeID
	source vom.Identity
	as     vom.Origin // what the credential will be
	pub    ed25519.PublicKey
	csr    *x509.CertificateRequest
}

// Delegate certifies a node's key for a user who showed herself to it, or whom
// it acts for already.
func (s *Service) Delegate(ctx context.Context, req *connect.Request[xosv1.DelegateRequest]) (*connect.Response[xosv1.DelegateResponse], error) {
	c, err := s.claim(ctx, req.Msg)
	return audited(ctx, s, "delegate", accountOf(c.source), func() (*xosv1.DelegateResponse, error) {
		if err != nil {
			return nil, err
		}
		d, longest := s.delegates.Policy.Delegation(ctx, c.source, vom.ActionDelegate, c.node, c.as)
		if !d.Allow {
			err := xos.Errorf(xos.Permission, "%s", d.Reason)
			if c.as.Mode == vom.Vouched && c.as.Depth == 1 {
				err = err.WithHint("log in with ssh -A, then xos delegate")
			}
			return nil, err
		}
		if longest == 0 || longest > s.delegates.Validity {
			longest = s.delegates.Validity
		}
		id, err := s.records.Delegate(ctx, c.source, c.node, c.as, s.now().Add(longest))
		if err != nil {
			return nil, err
		}
		chain, err := s.authority.User(ctx, c.csr, id)
		if err != nil {
			return nil, err
		}
		out := &xosv1.DelegateResponse{X509Chain: chain, Attributes: wire(id.Attributes), NotAfter: timestamppb.New(id.NotAfter),
			Until: timestamppb.New(c.as.Until), Mode: string(c.as.Mode), Depth: int64(c.as.Depth)}
		if len(req.Msg.SshCsr) == 0 {
			return out, nil
		}
		out.SshCertificate, err = s.session(ctx, req.Msg.SshCsr, c, id)
		if xos.Is(err, xos.Permission) {
			out.SshRefused, err = err.Error(), nil // she works here all the same
		}
		return out, err
	})
}

// session certifies a key by which she goes on to other machines.
func (s *Service) session(ctx context.Context, csr []byte, c claim, id vom.Identity) (string, error) {
	_, pub, err := authority.ParseRequest(csr)
	if err != nil {
		return "", err
	}
	switch d, _ := s.delegates.Policy.Delegation(ctx, c.source, vom.ActionSSO, c.node, c.as); {
	case c.as.Job:
		return "", xos.Errorf(xos.Permission, "a job opens no sessions on other machines")
	case pub.Equal(c.pub):
		return "", xos.Errorf(xos.Invalid, "a session has a key of its own")
	case c.as.Depth >= vom.MaxDepth:
		return "", xos.Errorf(xos.Permission, "this session has come through %d machines, and goes no further", c.as.Depth)
	case !d.Allow:
		return "", xos.Errorf(xos.Permission, "%s", d.Reason)
	}
	from := addresses(rpc.PeerFrom(ctx))
	if len(from) == 0 {
		return "", xos.Errorf(xos.Permission, "no address of %s is known, from which its sessions could go on", c.node)
	}
	return s.authority.SSHSession(ctx, pub, id, from)
}

// addresses are those of a machine: by its certificate, and the one it calls
// from. Every machine has the loopback one, so it tells nothing.
func addresses(p rpc.Peer) (list []netip.Addr) {
	add := func(a netip.Addr, ok bool) {
		if a = a.Unmap(); ok && !a.IsLoopback() && !a.IsUnspecified() && a.Zone() == "" && len(list) < credential.MaxSources {
			list = append(list, a)
		}
	}
	for _, ip := range p.Chain[0].IPAddresses {
		a, ok := netip.AddrFromSlice(ip)
		add(a, ok)
	}
	if host, _, err := net.SplitHostPort(p.Address); err == nil {
		a, err := netip.ParseAddr(host)
		add(a, err == nil)
	}
	return list
}

// claim verifies what a machine shows.
func (s *Service) claim(ctx context.Context, m *xosv1.DelegateRequest) (claim, error) {
	fail := func(c claim, err error) (claim, error) { return claim{source: c.source}, err }
	peer, err := s.verifier.Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return fail(claim{}, err)
	}
	c := claim{node: peer.Node}
	if peer.Service != vom.ServiceNode {
		return fail(c, xos.Errorf(xos.Permission, "service %q acts for no user", peer.Service))
	}
	shown := 0
	for _, there := range []bool{len(m.SshCertificate) > 0, len(m.Order) > 0, len(m.HeldChain) > 0} {
		if there {
			shown++
		}
	}
	if shown != 1 || len(m.Consent) > 0 && len(m.SshCertificate) == 0 {
		return fail(c, xos.Errorf(xos.Invalid, "show either an OpenSSH certificate, or an order, or the credential that is held"))
	}
	var evidence func(*xosv1.DelegateRequest, *claim) error
	switch {
	case len(m.SshCertificate) > 0:
		evidence = s.byCertificate
	case len(m.Order) > 0:
		evidence = s.byOrder
	default:
		evidence = s.byHeld
	}
	// Who cannot prove to have a key learns nothing with it.
	if c.csr, c.pub, err = authority.ParseRequest(m.Csr); err != nil {
		return fail(c, err)
	}
	if err := evidence(m, &c); err != nil {
		return fail(c, err)
	}
	from, err := s.records.Origin(ctx, c.source)
	if err != nil {
		return fail(c, err)
	}
	if c.as.Until.IsZero() || from.Until.Before(c.as.Until) {
		c.as.Until = from.Until
	}
	c.as.Depth, c.as.Job = from.Depth, c.as.Job || from.Job
	if from.Mode != "" {
		c.as.Mode = from.Mode // as it began
	}
	c.as.Via = from.Via
	if c.source.Node != c.node {
		c.as.Depth++
		if c.source.Node != "" {
			c.as.Via = c.source.Serial
		}
	}
	if c.as.Depth > vom.MaxDepth {
		return fail(c, xos.Errorf(xos.Permission, "the session of %s has come through %d machines already", c.source.Account, from.Depth))
	}
	return c, nil
}

// byCertificate: the machine says that she logged in with a certificate; or
// she signed with its key.
func (s *Service) byCertificate(m *xosv1.DelegateRequest, c *claim) error {
	cert, err := credential.ParseSSH(m.SshCertificate)
	if err != nil {
		return err
	}
	id, err := s.verifySSH(cert)
	if err != nil {
		return err
	}
	c.source, c.as.Mode = id, vom.Vouched
	if len(m.Consent) == 0 {
		return nil
	}
	c.as.Mode = vom.Signed
	c.as.Until, err = consent.Verify(m.Consent, m.ConsentSignature, cert, id, c.node, c.pub, s.now())
	return err
}

func (s *Service) verifySSH(cert *ssh.Certificate) (vom.Identity, error) {
	claimed, err := credential.FromSSH(cert)
	if err != nil {
		return vom.Identity{}, err
	}
	return s.verifier.SSH(cert, claimed.Account.String())
}

// byOrder: her credential on another machine orders a job here. The order's
// own end is that of starting the job, not of the job.
func (s *Service) byOrder(m *xosv1.DelegateRequest, c *claim) error {
	o, id, err := order.Verify(s.verifier, m.Order, m.OrderSignature, m.OrderChain, s.now())
	if err != nil {
		return err
	}
	if xos.NodeID(o.ExecutionNode) != c.node {
		return xos.Errorf(xos.Permission, "the order is for %.80q, not for %s", o.ExecutionNode, c.node)
	}
	c.source, c.as.Job = id, true
	return nil
}

// byHeld: the machine renews what it has, on the key it has it on.
func (s *Service) byHeld(m *xosv1.DelegateRequest, c *claim) error {
	var chain []*x509.Certificate
	for _, der := range m.HeldChain {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return xos.Errorf(xos.Invalid, "reading the credential that is held: %w", err)
		}
		chain = append(chain, x)
	}
	id, err := s.verifier.X509(chain)
	if err != nil {
		return err
	}
	c.source = id
	if id.Node != c.node {
		return xos.Errorf(xos.Permission, "the credential is that of %q, not of %s", id.Node, c.node)
	}
	if pub, ok := chain[0].PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(c.pub) {
		return xos.Errorf(xos.Permission, "the request is not on the key of the credential that is held")
	}
	return nil
}
