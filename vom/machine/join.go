package machine

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Token is a join token, "ID.SECRET.FINGERPRINT": the last part names the
// root, so that a machine knows the right core from a false one.
type Token string

// Fingerprint gives the root's fingerprint in the token.
func (t Token) Fingerprint() (string, error) {
	parts := strings.Split(strings.TrimSpace(string(t)), ".")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || len(parts[2]) != 64 || strings.Trim(parts[2], "0123456789abcdef") != "" {
		return "", xos.Errorf(xos.Invalid, "this is no join token").WithHint("make one on the core: xos node token")
	}
	return parts[2], nil
}

// JoinConfig says who joins what.
type JoinConfig struct {
	Core    string
	Token   Token
	Name    string // node name; empty: the host name
	Service vom.Service
	// HostKey is the path of sshd's public host key to certify; "" for none.
	HostKey string
	// Addresses to be certified for; nil: all of this machine's.
	Addresses []net.IP
}

// Joined is a machine's new credential and what it is to trust.
type Joined struct {
	CertPEM, KeyPEM    []byte
	SSHHostCertificate string
	Trust              *xosv1.TrustResponse
}

// Join certifies a new key of this machine. Nothing is written.
func Join(ctx context.Context, cfg JoinConfig) (*Joined, error) {
	fingerprint, err := cfg.Token.Fingerprint()
	if err != nil {
		return nil, err
	}
	trust, _, err := FetchTrust(ctx, cfg.Core, fingerprint)
	if err != nil {
		return nil, err
	}
	roots, err := parseRoots(trust.X509Roots)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		if cfg.Name, err = HostName(); err != nil {
			return nil, err
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, keyPEM, err := request(cfg.Name, cfg.Addresses, key)
	if err != nil {
		return nil, err
	}
	var hostKey []byte
	if cfg.HostKey != "" {
		if hostKey, err = os.ReadFile(cfg.HostKey); err != nil {
			return nil, xos.Errorf(xos.Invalid, "reading sshd's host key: %w", err).WithHint("ssh-keygen -A")
		}
	}
	client := xosv1connect.NewMachinesClient(rpc.TLSClient(CoreTLS(roots, nil)), "https://"+Address(cfg.Core), rpc.ClientOptions()...)
	resp, err := client.Join(ctx, connect.NewRequest(&xosv1.JoinRequest{
		Token: strings.TrimSpace(string(cfg.Token)), Name: cfg.Name, Service: string(cfg.Service),
		Csr: csr, SshHostKey: string(hostKey),
	}))
	if err != nil {
		return nil, err
	}
	j := joined(keyPEM, resp.Msg)
	if j.Trust == nil {
		j.Trust = trust
	}
	return j, nil
}

func joined(keyPEM []byte, m *xosv1.JoinResponse) *Joined {
	j := &Joined{KeyPEM: keyPEM, SSHHostCertificate: m.SshHostCertificate, Trust: m.Trust}
	for _, der := range m.X509Chain {
		j.CertPEM = append(j.CertPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return j
}

// Renew certifies the key of an old certificate, which the client shows, for
// longer. The key stays, so that at every moment the files of key and
// certificate fit each other. Nothing is written.
func Renew(ctx context.Context, client xosv1connect.MachinesClient, old *tls.Certificate, hostKey string) (*Joined, error) {
	key, ok := old.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, xos.Errorf(xos.Internal, "the machine's key cannot sign")
	}
	csr, keyPEM, err := request(old.Leaf.Subject.CommonName, append([]net.IP{}, old.Leaf.IPAddresses...), key)
	if err != nil {
		return nil, err
	}
	var host []byte
	if hostKey != "" {
		if host, err = os.ReadFile(hostKey); err != nil {
			return nil, xos.Errorf(xos.Invalid, "reading sshd's host key: %w", err)
		}
	}
	resp, err := client.RenewMachine(ctx, connect.NewRequest(&xosv1.RenewMachineRequest{Csr: csr, SshHostKey: string(host)}))
	if err != nil {
		return nil, err
	}
	return joined(keyPEM, resp.Msg), nil
}

// Store writes the credential into a state directory, key first and readable
// by its owner only: a certificate without its key never appears.
func (j *Joined) Store(dir string) error {
	if err := ReplaceFile(filepath.Join(dir, "key.pem"), j.KeyPEM, 0o600); err != nil {
		return err
	}
	return ReplaceFile(filepath.Join(dir, "cert.pem"), j.CertPEM, 0o644)
}

// HostName gives this machine's node name: the host name's first label.
func HostName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	if !xos.ValidName(name) {
		return "", xos.Errorf(xos.Invalid, "the host name %q cannot be a node name", name).WithHint("give one with --name")
	}
	return name, nil
}

// request makes a key and a request that names the host and its addresses.
func request(name string, ips []net.IP, key crypto.Signer) (csr, keyPEM []byte, err error) {
	if ips == nil {
		ips = addresses()
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: ips}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, tmpl, key); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return csr, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// addresses lists the machine's global unicast addresses.
func addresses() []net.IP {
	var list []net.IP
	found, _ := net.InterfaceAddrs()
	for _, a := range found {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			list = append(list, n.IP)
		}
	}
	return list
}

// CoreTLS is a client's configuration towards a core of the grid with these
// roots. cert is shown if not nil.
func CoreTLS(roots []*x509.Certificate, cert credential.Certificate) *tls.Config {
	var b vom.Bundle
	for _, r := range roots {
		b.X509Roots = append(b.X509Roots, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})))
	}
	v := credential.NewVerifier(func() vom.Bundle { return b }, time.Now)
	return v.ClientTLS(cert, vom.ServiceCore)
}
