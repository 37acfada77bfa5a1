// Package consent is a user's own word that one machine may act for her: what
// it says, how her ssh-agent signs it, and how the core verifies it. Where a
// VO wants it, a machine's word that she logged in there does not suffice.
//
// A consent names the machine and the machine's key, so that nobody else can
// use it, and the certificate whose key signed it, whose end it does not
// outlive. Shown again by that machine it gives nothing new: a credential on
// the same key, until the same time.
package consent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
)

// What an agent signs is OpenSSH's format for signatures of anything
// (PROTOCOL.sshsig), in a namespace of its own: never an ssh login, a TLS
// handshake or a job order.
const (
	magic     = "SSHSIG"
	namespace = "delegation@xtreemos"
)

const (
	maxContent   = 2 << 10
	maxSignature = 512
)

// Terms gives what is to be signed to let node, with its key, act for whom a
// certificate speaks for, until the certificate ends.
func Terms(who vom.Identity, node xos.NodeID, key ed25519.PublicKey) ([]byte, error) {
	hash, err := hashOf(key)
	if err != nil {
		return nil, err
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(&xosv1.ConsentContent{Account: who.Account.String(), Node: string(node),
		KeySha256: hash, Serial: who.Serial, NotAfter: timestamppb.New(who.NotAfter)})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "encoding a consent: %w", err)
	}
	return content, nil
}

// ToSign gives the bytes that the agent signs for a content.
func ToSign(content []byte) []byte {
	sum := sha512.Sum512(content)
	return append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, Algorithm string
		Hash                           []byte
	}{namespace, "", "sha512", sum[:]})...)
}

// Verify checks a consent that node shows, with its key and the certificate of
// the user, which must be verified. It says until when it holds.
func Verify(content, signature []byte, cert *ssh.Certificate, who vom.Identity, node xos.NodeID, key ed25519.PublicKey, now time.Time) (time.Time, error) {
	fail := func(format string, args ...any) (time.Time, error) {
		return time.Time{}, xos.Errorf(xos.Permission, format, args...)
	}
	if len(content) == 0 || len(content) > maxContent || len(signature) == 0 || len(signature) > maxSignature {
		return time.Time{}, xos.Errorf(xos.Invalid, "there is no consent of a proper size")
	}
	if who.Node != "" {
		return fail("the certificate of %s is a session's on %s: only her own key consents", who.Account, who.Node)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(signature, &sig); err != nil {
		return time.Time{}, xos.Errorf(xos.Invalid, "the signature of the consent is malformed: %w", err)
	}
	// The algorithm is the certified key's own: ed25519 alone is certified.
	if sig.Format != ssh.KeyAlgoED25519 || len(sig.Rest) > 0 || cert.Key.Type() != ssh.KeyAlgoED25519 || cert.Key.Verify(ToSign(content), &sig) != nil {
		return fail("the consent is not signed with the key of the certificate of %s", who.Account)
	}
	var c xosv1.ConsentContent
	if err := proto.Unmarshal(content, &c); err != nil {
		return time.Time{}, xos.Errorf(xos.Invalid, "reading the consent: %w", err)
	}
	hash, err := hashOf(key)
	if err != nil {
		return time.Time{}, err
	}
	switch {
	case c.Account != who.Account.String() || c.Serial != who.Serial:
		return fail("the consent is of another certificate than that of %s", who.Account)
	case c.Node != string(node):
		return fail("the consent of %s is for %.80q, not for %s", who.Account, c.Node, node)
	case string(c.KeySha256) != string(hash):
		return fail("the consent of %s is for another key of %s", who.Account, node)
	case c.NotAfter == nil || c.NotAfter.CheckValid() != nil:
		return time.Time{}, xos.Errorf(xos.Invalid, "the consent has no end")
	case !now.Before(c.NotAfter.AsTime()):
		return time.Time{}, xos.Errorf(xos.Expired, "the consent of %s has expired", who.Account)
	}
	end := c.NotAfter.AsTime()
	if end.After(who.NotAfter) {
		end = who.NotAfter
	}
	return end, nil
}

func hashOf(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "encoding a key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}
