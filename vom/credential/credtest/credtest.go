// Package credtest makes throw-away authorities for tests: the certificates
// they sign are written by package credential and verify against their bundle.
package credtest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Authority is a grid's authorities, X.509 (root and intermediate) and
// OpenSSH, with its bundle. It is safe for concurrent use.
type Authority struct {
	t       testing.TB
	root    *x509.Certificate
	inter   *x509.Certificate
	key     ed25519.PrivateKey
	ssh     ssh.Signer
	sshHost ssh.Signer

	mu     sync.Mutex
	serial int64
	bundle vom.Bundle
}

// New makes an authority whose bundle has the VOs physics and chemistry, was
// issued now and serves for a day.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, serial: 1}
	rootPub, rootKey := a.newKey()
	a.root = a.ca("test root", rootPub, nil, rootKey)
	pub, key := a.newKey()
	a.inter, a.key = a.ca("test intermediate", pub, a.root, rootKey), key
	a.ssh, a.sshHost = a.newSigner(), a.newSigner()
	a.bundle = vom.Bundle{
		Epoch: 1, Issued: time.Now(), Offline: 24 * time.Hour,
		X509Roots:  []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))},
		SSHUserCAs: []string{string(ssh.MarshalAuthorizedKey(a.ssh.PublicKey()))},
		SSHHostCAs: []string{string(ssh.MarshalAuthorizedKey(a.sshHost.PublicKey()))},
		VOs:        []vom.VO{{Name: "physics"}, {Name: "chemistry"}},
	}
	return a
}

// Bundle gives the present bundle; the method itself fits NewVerifier.
func (a *Authority) Bundle() vom.Bundle {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bundle
}

// Change edits the bundle and counts its epoch up.
func (a *Authority) Change(edit func(*vom.Bundle)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.bundle
	b.VOs, b.Revocations = slices.Clone(b.VOs), slices.Clone(b.Revocations)
	edit(&b)
	b.Epoch++
	a.bundle = b
}

// Revoke adds a revocation.
func (a *Authority) Revoke(r vom.Revocation) {
	a.Change(func(b *vom.Bundle) { b.Revocations = append(b.Revocations, r) })
}

// Verifier verifies against this authority's bundle by the system's clock.
func (a *Authority) Verifier() *credential.Verifier {
	return credential.NewVerifier(a.Bundle, time.Now)
}

// Option changes a certificate before it is signed.
type Option func(*spec)

type spec struct {
	id  vom.Identity
	key ed25519.PrivateKey
	pub ed25519.PublicKey // certified in place of key's, if not nil
	dns []string
	ips []net.IP
	err func(*ssh.Certificate)
}

func Groups(g ...xos.GroupName) Option  { return func(s *spec) { s.id.Groups = g } }
func Roles(r ...xos.RoleName) Option    { return func(s *spec) { s.id.Roles = r } }
func Home(v xos.VolumeID) Option        { return func(s *spec) { s.id.Home = v } }
func Source(serial string) Option       { return func(s *spec) { s.id.Source = serial } }
func Key(key ed25519.PrivateKey) Option { return func(s *spec) { s.key = key } }
func PublicKey(pub ed25519.PublicKey) Option {
	return func(s *spec) { s.pub = pub }
}
func Address(ips ...net.IP) Option { return func(s *spec) { s.ips = ips } }
func Names(dns ...string) Option   { return func(s *spec) { s.dns = dns } }

// Erring lets the authority sign an OpenSSH certificate as change leaves it.
func Erring(change func(*ssh.Certificate)) Option { return func(s *spec) { s.err = change } }

// Issued sets the time of issue, which is the begin of validity too, to t and
// the end to its ttl later.
func Issued(t time.Time, ttl time.Duration) Option {
	return func(s *spec) { s.id.Issued, s.id.NotBefore, s.id.NotAfter = t, t, t.Add(ttl) }
}

func (a *Authority) spec(account string, opts []Option) *spec {
	a.t.Helper()
	s := &spec{}
	now := time.Now()
	Issued(now.Add(-time.Second), time.Hour)(s)
	if account != "" {
		acc, err := xos.ParseAccount(account)
		if err != nil {
			a.t.Fatal(err)
		}
		s.id.Account = acc
		s.id.Home = xos.VolumeID("home-" + string(acc.VO) + "-" + string(acc.User))
	}
	for _, o := range opts {
		o(s)
	}
	s.id.Attributes = credential.Clean(s.id.Attributes)
	if s.key == nil {
		_, s.key = a.newKey()
	}
	if s.pub == nil {
		s.pub = s.key.Public().(ed25519.PublicKey)
	}
	return s
}

// SSHUser gives an OpenSSH user certificate for "alice@physics" and its key.
func (a *Authority) SSHUser(account string, opts ...Option) (*ssh.Certificate, ed25519.PrivateKey) {
	a.t.Helper()
	s := a.spec(account, opts)
	pub, err := ssh.NewPublicKey(s.pub)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &ssh.Certificate{Key: pub, Serial: uint64(a.next()),
		ValidAfter: uint64(s.id.NotBefore.Unix()), ValidBefore: uint64(s.id.NotAfter.Unix())}
	if err := credential.FillSSH(c, s.id); err != nil {
		a.t.Fatal(err)
	}
	if s.err != nil {
		s.err(c)
	}
	if err := c.SignCert(rand.Reader, a.ssh); err != nil {
		a.t.Fatal(err)
	}
	return c, s.key
}

// SSHSession gives the OpenSSH certificate of a session on a node, and its key.
func (a *Authority) SSHSession(account string, node xos.NodeID, from []netip.Addr, opts ...Option) (*ssh.Certificate, ed25519.PrivateKey) {
	a.t.Helper()
	s := a.spec(account, opts)
	s.id.Node = node
	pub, err := ssh.NewPublicKey(s.pub)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &ssh.Certificate{Key: pub, Serial: uint64(a.next()),
		ValidAfter: uint64(s.id.NotBefore.Unix()), ValidBefore: uint64(s.id.NotAfter.Unix())}
	if err := credential.FillSession(c, s.id, from); err != nil {
		a.t.Fatal(err)
	}
	if err := c.SignCert(rand.Reader, a.ssh); err != nil {
		a.t.Fatal(err)
	}
	return c, s.key
}

// X509User gives a user's certificate with chain, key and Leaf.
func (a *Authority) X509User(account string, opts ...Option) tls.Certificate {
	a.t.Helper()
	s := a.spec(account, opts)
	exts, err := credential.UserExtensions(s.id)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.leaf(s, account, exts, x509.ExtKeyUsageClientAuth)
}

// Delegated gives a credential that lets a node act for a user.
func (a *Authority) Delegated(account string, node xos.NodeID, opts ...Option) tls.Certificate {
	a.t.Helper()
	return a.X509User(account, append(opts, func(s *spec) { s.id.Node = node })...)
}

// Machine gives a machine's certificate. It is good for 127.0.0.1 too.
func (a *Authority) Machine(node xos.NodeID, service vom.Service, opts ...Option) tls.Certificate {
	a.t.Helper()
	s := a.spec("", append([]Option{Address(net.IPv4(127, 0, 0, 1))}, opts...))
	s.dns = append([]string{string(node)}, s.dns...)
	exts, err := credential.MachineExtensions(service, s.id.Issued)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.leaf(s, string(node), exts, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
}

// Show fits ServerTLS and ClientTLS.
func Show(c tls.Certificate) credential.Certificate {
	return func() (*tls.Certificate, error) { return &c, nil }
}

// Chain parses a certificate's chain, as a TLS peer would see it.
func Chain(t testing.TB, c tls.Certificate) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range c.Certificate {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, x)
	}
	return chain
}

func (a *Authority) leaf(s *spec, name string, exts []pkix.Extension, usages ...x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next()), Subject: pkix.Name{CommonName: name},
		NotBefore: s.id.NotBefore, NotAfter: s.id.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
		DNSNames: s.dns, IPAddresses: s.ips, ExtraExtensions: exts,
	}
	c := a.sign(template, a.inter, s.pub, a.key)
	return tls.Certificate{Certificate: [][]byte{c.Raw, a.inter.Raw}, PrivateKey: s.key, Leaf: c}
}

func (a *Authority) ca(name string, pub ed25519.PublicKey, parent *x509.Certificate, key ed25519.PrivateKey) *x509.Certificate {
	a.t.Helper()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-100 * 24 * time.Hour), NotAfter: now.Add(1000 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent = template
	} else {
		template.MaxPathLenZero = true
	}
	return a.sign(template, parent, pub, key)
}

func (a *Authority) sign(template, parent *x509.Certificate, pub any, key ed25519.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *Authority) next() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serial++
	return a.serial
}

func (a *Authority) newKey() (ed25519.PublicKey, ed25519.PrivateKey) {
	a.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return pub, key
}

// newSigner is of the kind that a grid's authority signs for OpenSSH with.
func (a *Authority) newSigner() ssh.Signer {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}
