// Package rca is the resource certification authority (RCA): it certifies
// machines and gives them the bundle. It serves Machines of api/xos/v1.
package rca

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/cda"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/xvoms"
)

// Service implements xosv1connect.MachinesHandler.
type Service struct {
	records   *xvoms.Records
	authority *authority.Authority
	verifier  *credential.Verifier
	audit     cda.Audit
	site      string
	log       *slog.Logger
}

var _ xosv1connect.MachinesHandler = (*Service)(nil)

// New makes the service. site is the core's name, for reasons.
func New(r *xvoms.Records, a *authority.Authority, v *credential.Verifier, log cda.Audit, site string, l *slog.Logger) *Service {
	return &Service{r, a, v, log, site, l}
}

// admin refuses everybody but root on this machine.
func admin(ctx context.Context) error {
	if p := rpc.PeerFrom(ctx); !p.Unix || p.UID != 0 {
		return xos.Errorf(xos.Permission, "only administrators may do this").WithHint("run it as root on the core's machine")
	}
	return nil
}

func (s *Service) CreateJoinToken(ctx context.Context, req *connect.Request[xosv1.CreateJoinTokenRequest]) (*connect.Response[xosv1.CreateJoinTokenResponse], error) {
	return audited(ctx, s, "create join token", "", func() (*xosv1.CreateJoinTokenResponse, error) {
		if err := admin(ctx); err != nil {
			return nil, err
		}
		if req.Msg.Seconds < 0 || req.Msg.Seconds > 1<<31 {
			return nil, xos.Errorf(xos.Invalid, "%d seconds is no duration for this", req.Msg.Seconds)
		}
		id, token, err := s.records.CreateJoinToken(ctx, time.Duration(req.Msg.Seconds)*time.Second, req.Msg.Uses)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(s.authority.Root())
		text := id + "." + token.Secret + "." + hex.EncodeToString(sum[:])
		return &xosv1.CreateJoinTokenResponse{Token: text, Expires: timestamppb.New(token.Expires)}, nil
	})
}

func (s *Service) Join(ctx context.Context, req *connect.Request[xosv1.JoinRequest]) (*connect.Response[xosv1.JoinResponse], error) {
	m := req.Msg
	return audited(ctx, s, "join", m.Name, func() (*xosv1.JoinResponse, error) {
		csr, claim, err := claim(m.Csr, xos.NodeID(m.Name), vom.Service(m.Service))
		if err != nil {
			return nil, err
		}
		// All that can be refused is, before the token is spent.
		host, err := hostKey(m.SshHostKey)
		if err != nil {
			return nil, err
		}
		id, rest, _ := strings.Cut(m.Token, ".")
		secret, _, _ := strings.Cut(rest, ".")
		grant, err := s.records.Join(ctx, id, secret, claim, rpc.PeerFrom(ctx).Address)
		if err != nil {
			return nil, err
		}
		return s.certify(ctx, csr, grant, host)
	})
}

func (s *Service) RenewMachine(ctx context.Context, req *connect.Request[xosv1.RenewMachineRequest]) (*connect.Response[xosv1.JoinResponse], error) {
	chain := rpc.PeerFrom(ctx).Chain
	peer, err := s.verifier.Machine(chain)
	return audited(ctx, s, "renew machine", string(peer.Node), func() (*xosv1.JoinResponse, error) {
		if err != nil {
			return nil, err
		}
		csr, claim, err := claim(req.Msg.Csr, peer.Node, peer.Service)
		if err != nil {
			return nil, err
		}
		host, err := hostKey(req.Msg.SshHostKey)
		if err != nil {
			return nil, err
		}
		shown := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
		grant, err := s.records.RenewMachine(ctx, claim, shown, rpc.PeerFrom(ctx).Address)
		if err != nil {
			return nil, err
		}
		return s.certify(ctx, csr, grant, host)
	})
}

// claim reads what a machine wants: its key, and addresses of its own.
func claim(der []byte, node xos.NodeID, service vom.Service) (*x509.CertificateRequest, vom.MachineClaim, error) {
	csr, _, err := authority.ParseRequest(der)
	if err != nil {
		return nil, vom.MachineClaim{}, err
	}
	c := vom.MachineClaim{Node: node, Service: service, Key: sha256.Sum256(csr.RawSubjectPublicKeyInfo), Fingerprint: credential.Fingerprint(csr.PublicKey)}
	for _, ip := range csr.IPAddresses {
		if a, ok := netip.AddrFromSlice(net.IP(ip)); ok {
			c.Addresses = append(c.Addresses, a.Unmap())
		}
	}
	return csr, c, nil
}

func (s *Service) certify(ctx context.Context, csr *x509.CertificateRequest, g vom.MachineGrant, host ssh.PublicKey) (*xosv1.JoinResponse, error) {
	chain, err := s.authority.Machine(ctx, csr, g)
	if err != nil {
		return nil, err
	}
	resp := &xosv1.JoinResponse{X509Chain: chain, Trust: cda.TrustOf(s.authority), NotAfter: timestamppb.New(g.NotAfter)}
	if host == nil || g.Service != vom.ServiceNode {
		return resp, nil
	}
	resp.SshHostCertificate, err = s.authority.SSHHost(ctx, host, g)
	return resp, err
}

// hostKey reads sshd's public key; nil for none.
func hostKey(line string) (ssh.PublicKey, error) {
	if line == "" {
		return nil, nil
	}
	if len(line) > 8192 {
		return nil, xos.Errorf(xos.TooLarge, "sshd's host key has %d bytes", len(line))
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading sshd's host key: %w", err)
	}
	if _, isCert := key.(*ssh.Certificate); isCert {
		return nil, xos.Errorf(xos.Invalid, "sshd's host key is a certificate; send the plain key")
	}
	if !strong(key) {
		return nil, xos.Errorf(xos.Invalid, "sshd's host key, %s, is too weak to be certified", key.Type()).WithHint("ssh-keygen -A makes one of ed25519")
	}
	return key, nil
}

// strong admits ed25519, the curves of NIST, and RSA from 2048 bits on.
func strong(key ssh.PublicKey) bool {
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	switch pub := c.CryptoPublicKey().(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey:
		return true
	case *rsa.PublicKey:
		return pub.N.BitLen() >= 2048
	}
	return false
}

func (s *Service) ListMachines(ctx context.Context, _ *connect.Request[xosv1.ListMachinesRequest]) (*connect.Response[xosv1.ListMachinesResponse], error) {
	if err := admin(ctx); err != nil {
		return nil, err
	}
	list, err := s.records.ListMachines(ctx)
	if err != nil {
		return nil, err
	}
	resp := &xosv1.ListMachinesResponse{}
	for _, m := range list {
		resp.Machines = append(resp.Machines, &xosv1.Machine{Name: string(m.Node), Service: string(m.Service),
			Joined: timestamppb.New(m.Joined), NotAfter: timestamppb.New(m.NotAfter), Address: m.Address})
	}
	return connect.NewResponse(resp), nil
}

func (s *Service) RemoveMachine(ctx context.Context, req *connect.Request[xosv1.RemoveMachineRequest]) (*connect.Response[xosv1.RemoveMachineResponse], error) {
	return audited(ctx, s, "remove machine", req.Msg.Name, func() (*xosv1.RemoveMachineResponse, error) {
		if err := admin(ctx); err != nil {
			return nil, err
		}
		return &xosv1.RemoveMachineResponse{}, s.records.RemoveMachine(ctx, xos.NodeID(req.Msg.Name), req.Msg.Reason, "by root at "+s.site)
	})
}

// Bundle gives machines the bundle: all of it if theirs is not the latest,
// else only the time at which theirs was still the latest.
func (s *Service) Bundle(ctx context.Context, req *connect.Request[xosv1.BundleRequest]) (*connect.Response[xosv1.BundleResponse], error) {
	peer, err := s.verifier.Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return nil, err
	}
	if said := req.Msg.InForce; said != nil && peer.Service == vom.ServiceNode {
		s.records.Heard(peer.Node, xvoms.InForce{Epoch: said.Epoch, VOs: named(said.Vos), Unread: named(said.Unread)})
	}
	// Another core may have changed it: a bundle is vouched for only when read.
	if err := s.records.Refresh(ctx); err != nil {
		return nil, err
	}
	b := s.records.Bundle()
	resp := &xosv1.BundleResponse{Epoch: b.Epoch, Issued: timestamppb.New(b.Issued)}
	if req.Msg.Epoch != b.Epoch {
		data, err := json.Marshal(b)
		if err != nil {
			return nil, xos.Errorf(xos.Internal, "encoding the bundle: %w", err)
		}
		resp.Bundle = data
	}
	return connect.NewResponse(resp), nil
}

func named(words []string) (vos []xos.VOName) {
	for _, w := range words {
		vos = append(vos, xos.VOName(w))
	}
	return vos
}

// audited runs f and writes down what came of it.
func audited[A any](ctx context.Context, s *Service, action, subject string, f func() (*A, error)) (*connect.Response[A], error) {
	answer, err := f()
	p := rpc.PeerFrom(ctx)
	rec := audit.Record{Actor: p.Address, Action: action, Subject: subject, Allowed: err == nil}
	if p.Unix && p.UID == 0 {
		rec.Actor, rec.Admitted = "root", true
	}
	if err != nil {
		rec.Reason = err.Error()
	}
	line, aerr := s.audit.Note(ctx, rec)
	if aerr != nil && err == nil {
		err = xos.Errorf(xos.Unavailable, "writing the audit log: %w", aerr)
	}
	if err != nil && (line || aerr != nil) {
		s.log.Info("refused", "action", action, "subject", subject, "peer", rec.Actor, "error", err)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}
