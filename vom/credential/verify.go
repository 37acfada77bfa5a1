package credential

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Verifier checks certificates against the latest bundle: chain, validity,
// revocation. Its errors are xos.Expired for one that has run out,
// xos.Invalid for one that is malformed, xos.Unavailable where this machine
// knows no authorities or has been without news for too long, xos.Permission
// for all else. It is safe for concurrent use.
type Verifier struct {
	bundle func() vom.Bundle
	now    func() time.Time
	parsed atomic.Pointer[anchors]
}

// NewVerifier makes a verifier. bundle is asked at each verification and must
// be quick; what it gives must not be changed afterwards.
func NewVerifier(bundle func() vom.Bundle, now func() time.Time) *Verifier {
	return &Verifier{bundle: bundle, now: now}
}

// anchors is what the bundle's authorities were parsed into.
type anchors struct {
	x509PEM, sshLines []string
	roots             *x509.CertPool
	sshUserCAs        [][]byte
}

// anchors parses the bundle's authorities once per change of them.
func (v *Verifier) anchors(b vom.Bundle) (*anchors, error) {
	if a := v.parsed.Load(); a != nil && slices.Equal(a.x509PEM, b.X509Roots) && slices.Equal(a.sshLines, b.SSHUserCAs) {
		return a, nil
	}
	a := &anchors{x509PEM: b.X509Roots, sshLines: b.SSHUserCAs, roots: x509.NewCertPool()}
	for _, p := range b.X509Roots {
		if !a.roots.AppendCertsFromPEM([]byte(p)) {
			return nil, xos.Errorf(xos.Unavailable, "an X.509 root of the trust bundle is malformed")
		}
	}
	for _, line := range b.SSHUserCAs {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, xos.Errorf(xos.Unavailable, "an OpenSSH authority of the trust bundle is malformed")
		}
		a.sshUserCAs = append(a.sshUserCAs, key.Marshal())
	}
	v.parsed.Store(a)
	return a, nil
}

// SSH verifies a user's OpenSSH certificate that shall log in as principal,
// "alice@physics". It is for certificates whose bearer proved possession of
// the key, or will have to.
func (v *Verifier) SSH(c *ssh.Certificate, principal string) (vom.Identity, error) {
	id, err := FromSSH(c)
	if err != nil {
		return vom.Identity{}, formed(err)
	}
	if principal != id.Account.String() {
		return vom.Identity{}, vom.By(vom.RuleAccount, xos.Errorf(xos.Permission, "the certificate is for %s, not for %.80q", id.Account, principal))
	}
	b := v.bundle()
	a, err := v.anchors(b)
	if err != nil {
		return vom.Identity{}, err
	}
	if len(a.sshUserCAs) == 0 {
		return vom.Identity{}, noTrust()
	}
	known := func(key ssh.PublicKey) bool {
		wire := key.Marshal()
		return slices.ContainsFunc(a.sshUserCAs, func(ca []byte) bool { return bytes.Equal(ca, wire) })
	}
	if !known(c.SignatureKey) {
		return vom.Identity{}, vom.By(vom.RuleAuthority, xos.Errorf(xos.Permission, "the certificate of %s is signed by an authority this grid does not know", id.Account))
	}
	if err := v.valid(id.Account.String(), id.NotBefore, id.NotAfter); err != nil {
		return vom.Identity{}, err
	}
	// No critical option is supported but a session's source address, which
	// FromSSH has looked at and sshd enforces.
	checker := ssh.CertChecker{Clock: v.now, IsUserAuthority: known, SupportedCriticalOptions: []string{sshSourceAddress}}
	if err := checker.CheckCert(principal, c); err != nil {
		return vom.Identity{}, vom.By(vom.RuleAuthority, xos.Errorf(xos.Permission, "the certificate of %s does not verify: %w", id.Account, err))
	}
	return id, v.user(b, id, false)
}

// X509 verifies a user's certificate, leaf first, intermediates after it.
func (v *Verifier) X509(chain []*x509.Certificate) (vom.Identity, error) {
	return v.x509(chain, false)
}

// X509Running is X509 for services that attend to what runs already, its files
// and its jobs: a credential that a machine holds serves there as long as what
// runs of a removed member may finish, or waits frozen, so that what was
// acknowledged to it can be written. Nothing may be begun with it.
func (v *Verifier) X509Running(chain []*x509.Certificate) (vom.Identity, error) {
	return v.x509(chain, true)
}

func (v *Verifier) x509(chain []*x509.Certificate, running bool) (vom.Identity, error) {
	b := v.bundle()
	leaf, err := v.chain(b, chain, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return vom.Identity{}, err
	}
	id, err := FromX509(leaf)
	if err != nil {
		return vom.Identity{}, formed(err)
	}
	return id, v.user(b, id, running)
}

// Machine verifies a machine's certificate, leaf first. A machine without
// news is still known as itself, else it could never get news.
func (v *Verifier) Machine(chain []*x509.Certificate) (vom.Machine, error) {
	b := v.bundle()
	leaf, err := v.chain(b, chain, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return vom.Machine{}, err
	}
	m, issued, err := machine(leaf)
	if err != nil {
		return vom.Machine{}, err
	}
	if ban, ok := BannedMachine(b.Bans, m, v.now()); ok {
		return vom.Machine{}, banned(ban)
	}
	if r, ok := RevokedMachine(b.Revocations, m, issued); ok {
		return vom.Machine{}, refusal("machine "+string(m.Node), r)
	}
	return m, nil
}

// Chain verifies chain and validity only, for the one question that even a
// revoked user may ask: why.
func (v *Verifier) Chain(chain []*x509.Certificate) error {
	_, err := v.chain(v.bundle(), chain, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
	return err
}

// maxChain is the most certificates a chain may have: leaf, intermediate, root
// and one for a change of authorities.
const maxChain = 4

func (v *Verifier) chain(b vom.Bundle, chain []*x509.Certificate, usages ...x509.ExtKeyUsage) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, xos.Errorf(xos.Permission, "no certificate was shown")
	}
	if len(chain) > maxChain {
		return nil, xos.Errorf(xos.Invalid, "a chain of %d certificates is too long", len(chain))
	}
	a, err := v.anchors(b)
	if err != nil {
		return nil, err
	}
	if len(b.X509Roots) == 0 {
		return nil, noTrust()
	}
	leaf := chain[0]
	if leaf.IsCA {
		return nil, xos.Errorf(xos.Permission, "an authority's certificate speaks for nobody")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	name := leaf.Subject.CommonName
	// The chain is judged at a time within the leaf's validity first, so that
	// "expired" is said only of what was once good.
	at := v.now()
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	} else if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: a.roots, Intermediates: between, CurrentTime: at, KeyUsages: usages})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return nil, vom.By(vom.RuleAuthority, xos.Errorf(xos.Permission, "the certificate of %.80q is not from an authority this grid knows", name))
	case err != nil:
		return nil, vom.By(vom.RuleAuthority, xos.Errorf(xos.Permission, "the certificate of %.80q does not verify: %w", name, err))
	}
	return leaf, v.valid(name, leaf.NotBefore, leaf.NotAfter)
}

func (v *Verifier) valid(name string, notBefore, notAfter time.Time) error {
	now := v.now()
	if now.Before(notBefore) {
		return vom.By(vom.RuleValidity, xos.Errorf(xos.Permission, "the certificate of %.80q is valid only from %s on", name, notBefore.UTC().Format(time.RFC3339)).
			WithHint("one of the two clocks is wrong"))
	}
	if !now.Before(notAfter) {
		return vom.By(vom.RuleValidity, xos.Errorf(xos.Expired, "the certificate of %.80q expired at %s", name, notAfter.UTC().Format(time.RFC3339)).
			WithHint("get a new one with: xos login %.80s", name))
	}
	return nil
}

// user checks the bundle's age, its bans and its revocations.
func (v *Verifier) user(b vom.Bundle, id vom.Identity, running bool) error {
	now := v.now()
	if now.After(b.ServesUntil(id.VO)) {
		return Stale(b, id.VO)
	}
	if ban, ok := Banned(b.Bans, id, now); ok {
		return banned(ban)
	}
	r, ok := Revoked(b.Revocations, id)
	if !ok || running && id.Node != "" && r.Leaves(now) != vom.FateEnd {
		return nil
	}
	return refusal(id.Account.String(), r)
}

// Stale says that a machine with this bundle must not serve a VO any more.
func Stale(b vom.Bundle, vo xos.VOName) error {
	return vom.By(vom.RuleNews, xos.Errorf(xos.Unavailable, "this machine has had no news of revocations since %s, more than the allowed %v",
		b.Issued.UTC().Format(time.RFC3339), b.ServesUntil(vo).Sub(b.Issued)).WithHint("see whether xos-core can be reached: xos status"))
}

func noTrust() error {
	return vom.By(vom.RuleAuthority, xos.Errorf(xos.Unavailable, "this machine knows no authorities yet").WithHint("join a grid with: xos up"))
}

// formed marks an error of a decoder.
func formed(err error) error {
	var xe *xos.Error
	if errors.As(err, &xe) {
		return vom.By(vom.RuleForm, xe)
	}
	return err
}
