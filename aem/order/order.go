// Package order says what a machine runs for a user: the terms of the order
// that she gives through the machine she submits on (vom/order signs it), and
// what makes a job that a machine can run. So no machine can start a job for a
// user who never was there.
package order

import (
	"crypto/sha256"
	"crypto/tls"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	signed "github.com/xtreemos/xos/vom/order"
)

// Validity is for how long an order is good: long enough for a slow start and
// for clocks that differ, short enough to be no standing permission.
const Validity = 2 * time.Minute

// maxSpec bounds what is decoded.
const maxSpec = 192 << 10

// Signed is an order as it travels.
type Signed = signed.Signed

// Hash names an order.
func Hash(s Signed) []byte {
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
	end := now.Add(Validity)
	if end.After(id.NotAfter) {
		end = id.NotAfter
	}
	return signed.Sign(&xosv1.OrderContent{
		Job: string(terms.Job), Account: attributes(id.Attributes), SubmitNode: string(id.Node), ExecutionNode: string(terms.Execution),
		NotAfter: timestamppb.New(end), SpecSha256: signed.SpecHash(terms.Spec),
	}, cred)
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
	if len(spec) > maxSpec {
		return Verified{}, xos.Errorf(xos.TooLarge, "a job of %d bytes", len(spec))
	}
	c, who, err := signed.Verify(v, s.Content, s.Signature, s.Chain, now)
	if err != nil {
		return Verified{}, err
	}
	switch {
	case peer != who.Node:
		return Verified{}, xos.Errorf(xos.Permission, "%s shows an order from %s", peer, who.Node)
	case xos.NodeID(c.ExecutionNode) != here:
		return Verified{}, xos.Errorf(xos.Permission, "the order is for %.40q, this is %s", c.ExecutionNode, here)
	case !sameAttributes(c.Account, who.Attributes):
		return Verified{}, xos.Errorf(xos.Permission, "the order claims other attributes than the credential of %s has", who.Account)
	case c.NotAfter.AsTime().After(now.Add(2 * Validity)):
		return Verified{}, xos.Errorf(xos.Permission, "the order is good for longer than %v", Validity)
	case !signed.Matches(c, spec):
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
