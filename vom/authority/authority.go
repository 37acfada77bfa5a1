// Package authority signs the grid's certificates, with an embedded smallstep
// authority: X.509 for users and machines, OpenSSH for users and hosts. Whom
// to certify is decided elsewhere (vom/cda, vom/rca); here stand the keys and
// the last checks on what is signed.
package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"time"

	stepauthority "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/sshutil"
	"go.step.sm/crypto/x509util"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Authority signs. It is safe for concurrent use.
type Authority struct {
	keys  *keys
	step  *stepauthority.Authority
	trust vom.Bundle
}

// Open reads the keys in dir, and makes them where dir and db are both new;
// issued certificates are kept in db. Cores that share records share keys too.
func Open(dir string, db kv.Store, now func() time.Time) (*Authority, error) {
	records := &store{db: db}
	known, err := records.root()
	if err != nil {
		return nil, err
	}
	k, err := loadKeys(dir, known, now())
	if err != nil {
		return nil, err
	}
	if err := records.keepRoot(k.fingerprint()); err != nil {
		return nil, err
	}
	a := &Authority{keys: k}
	a.trust.X509Roots = []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.root.Raw}))}
	user, err := line(k.sshUser)
	if err != nil {
		return nil, err
	}
	host, err := line(k.sshHost)
	if err != nil {
		return nil, err
	}
	a.trust.SSHUserCAs, a.trust.SSHHostCAs = []string{user}, []string{host}
	a.step, err = stepauthority.NewEmbedded(
		stepauthority.WithConfig(&config.Config{AuthorityConfig: &config.AuthConfig{
			Backdate: &provisioner.Duration{}, // NotBefore is the records' decision
		}}),
		stepauthority.WithX509RootCerts(k.root),
		stepauthority.WithX509Signer(k.issuer, k.issuerKey),
		stepauthority.WithSSHUserSigner(k.sshUser),
		stepauthority.WithSSHHostSigner(k.sshHost),
		stepauthority.WithDatabase(records),
		stepauthority.WithQuietInit(),
	)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "opening the authority: %w", err)
	}
	return a, nil
}

// Trust gives the public keys, in the bundle's fields for them.
func (a *Authority) Trust() vom.Bundle { return a.trust }

// Root gives the root certificate's DER.
func (a *Authority) Root() []byte { return a.keys.root.Raw }

// ParseRequest reads a PKCS #10 request and checks its proof of possession.
// Only ed25519 keys are certified: OpenSSH has a form for the same key.
func ParseRequest(der []byte) (*x509.CertificateRequest, ed25519.PublicKey, error) {
	if len(der) > 8192 {
		return nil, nil, xos.Errorf(xos.TooLarge, "a certificate request of %d bytes", len(der))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, xos.Errorf(xos.Invalid, "reading the certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, nil, xos.Errorf(xos.Permission, "the certificate request does not prove that you have its key: %w", err)
	}
	pub, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, nil, xos.Errorf(xos.NotSupported, "only ed25519 keys are certified, not %T", csr.PublicKey)
	}
	return csr, pub, nil
}

// User certifies a request's key for an identity, and gives the chain in DER,
// leaf first.
func (a *Authority) User(ctx context.Context, csr *x509.CertificateRequest, id vom.Identity) ([][]byte, error) {
	exts, err := credential.UserExtensions(id)
	if err != nil {
		return nil, err
	}
	return a.sign(ctx, csr, id.Serial, func(c *x509.Certificate) {
		c.Subject.CommonName = id.Account.String()
		c.NotBefore, c.NotAfter = id.NotBefore, id.NotAfter
		c.ExtraExtensions = exts
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
}

// Machine certifies a request's key for a machine.
func (a *Authority) Machine(ctx context.Context, csr *x509.CertificateRequest, g vom.MachineGrant) ([][]byte, error) {
	exts, err := credential.MachineExtensions(g.Service, g.Issued)
	if err != nil {
		return nil, err
	}
	return a.sign(ctx, csr, g.Serial, func(c *x509.Certificate) {
		c.Subject.CommonName = string(g.Node)
		c.NotBefore, c.NotAfter = g.NotBefore, g.NotAfter
		c.ExtraExtensions = exts
		c.DNSNames = []string{string(g.Node)}
		for _, ip := range g.Addresses {
			c.IPAddresses = append(c.IPAddresses, net.IP(ip.AsSlice()))
		}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	})
}

// enforcer sets what a certificate says, last of all: nothing that stood in
// the request is left but the key.
type enforcer func(*x509.Certificate)

func (f enforcer) Enforce(c *x509.Certificate) error { f(c); return nil }

func (a *Authority) sign(ctx context.Context, csr *x509.CertificateRequest, serial string, fill func(*x509.Certificate)) ([][]byte, error) {
	n, ok := new(big.Int).SetString(serial, 10)
	if !ok {
		return nil, xos.Errorf(xos.Internal, "%q is no serial", serial)
	}
	template := provisioner.CertificateOptions(certificateOptions{})
	chain, err := a.step.SignWithContext(ctx, csr, provisioner.SignOptions{}, template, enforcer(func(c *x509.Certificate) {
		public, algorithm := c.PublicKey, c.PublicKeyAlgorithm
		*c = x509.Certificate{PublicKey: public, PublicKeyAlgorithm: algorithm, SerialNumber: n,
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
		fill(c)
	}))
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "signing a certificate: %w", err)
	}
	var out [][]byte
	for _, c := range chain {
		out = append(out, c.Raw)
	}
	return out, nil
}

// certificateOptions give smallstep an empty template: see enforcer.
type certificateOptions struct{}

func (certificateOptions) Options(provisioner.SignOptions) []x509util.Option {
	return []x509util.Option{x509util.WithTemplate(`{"keyUsage":["digitalSignature"]}`, x509util.TemplateData{})}
}

// SSHUser certifies a key for an identity, as a line for the client's file.
func (a *Authority) SSHUser(ctx context.Context, pub ed25519.PublicKey, id vom.Identity) (string, error) {
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	return a.signSSH(ctx, key, provisioner.SSHUserCert, id.Serial, id.NotBefore, id.NotAfter, func(c *ssh.Certificate) error {
		return credential.FillSSH(c, id)
	}, id.Account.String())
}

// SSHHost certifies sshd's host key for a machine's name and addresses.
func (a *Authority) SSHHost(ctx context.Context, key ssh.PublicKey, g vom.MachineGrant) (string, error) {
	return a.signSSH(ctx, key, provisioner.SSHHostCert, g.Serial, g.NotBefore, g.NotAfter, func(c *ssh.Certificate) error {
		c.CertType = ssh.HostCert
		c.KeyId = string(g.Node)
		c.ValidPrincipals = append([]string{string(g.Node)}, texts(g.Addresses)...)
		c.CriticalOptions, c.Extensions = nil, nil
		return nil
	}, string(g.Node))
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

// modifier is enforcer for OpenSSH.
type modifier func(*ssh.Certificate) error

func (f modifier) Modify(c *ssh.Certificate, _ provisioner.SignSSHOptions) error { return f(c) }

// sshOptions are certificateOptions for OpenSSH.
type sshOptions struct{ kind string }

func (o sshOptions) Options(provisioner.SignSSHOptions) []sshutil.Option {
	return []sshutil.Option{sshutil.WithTemplate(`{"type":"`+o.kind+`"}`, sshutil.TemplateData{})}
}

func (a *Authority) signSSH(ctx context.Context, key ssh.PublicKey, kind, serial string, from, to time.Time, fill func(*ssh.Certificate) error, comment string) (string, error) {
	n, err := strconv.ParseUint(serial, 10, 64)
	if err != nil {
		return "", xos.Errorf(xos.Internal, "%q is no serial", serial)
	}
	cert, err := a.step.SignSSH(ctx, key, provisioner.SignSSHOptions{CertType: kind, KeyID: comment}, sshOptions{kind}, modifier(func(c *ssh.Certificate) error {
		c.Key, c.Serial = key, n
		c.ValidAfter, c.ValidBefore = uint64(from.Unix()), uint64(to.Unix())
		return fill(c)
	}))
	if err != nil {
		return "", xos.Errorf(xos.Internal, "signing an OpenSSH certificate: %w", err)
	}
	text := string(ssh.MarshalAuthorizedKey(cert))
	return text[:len(text)-1] + " " + comment, nil
}
