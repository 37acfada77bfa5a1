// Package order is a user's order to run one job on one machine, which the
// machine she submitted it on signs with the credential that she delegated to
// it. So no machine can start a job for a user who never was there.
package order

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Validity is for how long an order is good: long enough for a slow start and
// for clocks that differ, short enough to be no standing permission.
const Validity = 2 * time.Minute

// Bounds of what is decoded.
const (
	maxOrder = 64 << 10
	maxSpec  = 192 << 10
	maxChain = 4
	maxCert  = 32 << 10
)

// Signed is an order as it travels.
type Signed struct {
	Content   []byte   // OrderContent, protobuf
	Signature []byte   // ed25519 of Content
	Chain     [][]byte // of the signer, DER, leaf first
}

// Hash names an order.
func (s Signed) Hash() []byte {
	h := sha256.Sum256(s.Content)
	return h[:]
}

// Terms are what an order says beside its signer.
type Terms struct {
	Job       xos.JobID
	Execution xos.NodeID
	Spec      []byte // JobSpec, protobuf, exactly as it will be sent
}

// Sign makes the order of the user whose credential, delegated to this
// machine, is given.
func Sign(cred tls.Certificate, id vom.Identity, terms Terms, now time.Time) (Signed, error) {
	key, ok := cred.PrivateKey.(crypto.Signer)
	if !ok {
		return Signed{}, xos.Errorf(xos.Internal, "the credential of %s cannot sign", id.Account)
	}
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return Signed{}, xos.Errorf(xos.Internal, "the credential of %s has no ed25519 key", id.Account)
	}
	sum := sha256.Sum256(terms.Spec)
	end := now.Add(Validity)
	if end.After(id.NotAfter) {
		end = id.NotAfter
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(&xosv1.OrderContent{
		Job: string(terms.Job), Account: attributes(id.Attributes), SubmitNode: string(id.Node), ExecutionNode: string(terms.Execution),
		NotAfter: timestamppb.New(end), SpecSha256: sum[:],
	})
	if err != nil {
		return Signed{}, err
	}
	sig, err := key.Sign(rand.Reader, content, crypto.Hash(0))
	if err != nil {
		return Signed{}, xos.Errorf(xos.Internal, "signing an order of %s: %w", id.Account, err)
	}
	return Signed{content, sig, cred.Certificate}, nil
}

func attributes(a xos.Attributes) *xosv1.Attributes {
	out := &xosv1.Attributes{User: string(a.User), Vo: string(a.VO), Home: string(a.Home)}
	for _, g := range a.Groups {
		out.Groups = append(out.Groups, string(g))
	}
	for _, r := range a.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	return out
}

// Verified is what an order that holds says.
type Verified struct {
	Job  xos.JobID
	Who  vom.Identity // the signer: Who.Node is the submitting machine
	Spec *xosv1.JobSpec
}

// Verify checks an order shown to machine here by machine peer: signature and
// signer, that both machines are those it names, its end, and that spec is
// what was ordered.
func Verify(v *credential.Verifier, s Signed, spec []byte, here, peer xos.NodeID, now time.Time) (Verified, error) {
	if len(s.Content) > maxOrder || len(spec) > maxSpec || len(s.Chain) > maxChain {
		return Verified{}, xos.Errorf(xos.TooLarge, "an order of %d bytes for a job of %d bytes", len(s.Content), len(spec))
	}
	var chain []*x509.Certificate
	for _, der := range s.Chain {
		if len(der) > maxCert {
			return Verified{}, xos.Errorf(xos.TooLarge, "a certificate of %d bytes", len(der))
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Verified{}, xos.Errorf(xos.Invalid, "the order's signer has a malformed certificate")
		}
		chain = append(chain, c)
	}
	who, err := v.X509(chain)
	if err != nil {
		return Verified{}, err
	}
	key, ok := chain[0].PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(key, s.Content, s.Signature) {
		return Verified{}, xos.Errorf(xos.Permission, "the order's signature is not by %s", who.Account)
	}
	var c xosv1.OrderContent
	if err := proto.Unmarshal(s.Content, &c); err != nil {
		return Verified{}, xos.Errorf(xos.Invalid, "an order is malformed: %w", err)
	}
	sum := sha256.Sum256(spec)
	end := c.NotAfter.AsTime()
	switch {
	case who.Node == "" || xos.NodeID(c.SubmitNode) != who.Node:
		return Verified{}, xos.Errorf(xos.Permission, "the order of %s is from %.40q, but her credential is delegated to %q", who.Account, c.SubmitNode, who.Node)
	case peer != who.Node:
		return Verified{}, xos.Errorf(xos.Permission, "%s shows an order from %s", peer, who.Node)
	case xos.NodeID(c.ExecutionNode) != here:
		return Verified{}, xos.Errorf(xos.Permission, "the order is for %.40q, this is %s", c.ExecutionNode, here)
	case !sameAttributes(c.Account, who.Attributes):
		return Verified{}, xos.Errorf(xos.Permission, "the order claims other attributes than the credential of %s has", who.Account)
	case c.NotAfter == nil || !now.Before(end):
		return Verified{}, xos.Errorf(xos.Expired, "the order expired at %s", end.Format(time.RFC3339))
	case end.After(now.Add(2 * Validity)):
		return Verified{}, xos.Errorf(xos.Permission, "the order is good for longer than %v", Validity)
	case !bytes.Equal(sum[:], c.SpecSha256):
		return Verified{}, xos.Errorf(xos.Permission, "the job is not the one that %s ordered", who.Account)
	case !aem.ValidJobID(xos.JobID(c.Job)):
		return Verified{}, xos.Errorf(xos.Invalid, "%.80q is no job id", c.Job)
	}
	var js xosv1.JobSpec
	if err := proto.Unmarshal(spec, &js); err != nil {
		return Verified{}, xos.Errorf(xos.Invalid, "a job is malformed: %w", err)
	}
	return Verified{xos.JobID(c.Job), who, &js}, CheckSpec(&js)
}

func sameAttributes(w *xosv1.Attributes, a xos.Attributes) bool {
	b := attributes(a)
	return w.GetUser() == b.User && w.GetVo() == b.Vo && w.GetHome() == b.Home &&
		slices.Equal(w.GetGroups(), b.Groups) && slices.Equal(w.GetRoles(), b.Roles)
}
