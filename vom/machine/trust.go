// Package machine is the machine's side of the certification authorities: the
// public keys it trusts, and how it joins a grid with a one-time token.
package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

// CorePort is the port of a core's API where an address names none.
const CorePort = "7443"

// TrustDir is where a machine keeps the grid's public keys.
const TrustDir = "/etc/xos/trust"

// Address completes "core" to "core:7443".
func Address(s string) string {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s
	}
	return net.JoinHostPort(strings.Trim(s, "[]"), CorePort)
}

// Fingerprint is the SHA-256 of a root certificate's DER, in lower-case hex:
// what people compare, and what join tokens carry.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// FetchTrust asks a core for its public keys. Nothing vouches for the answer
// but want, the expected fingerprint of the root; with want empty the caller
// must let a person compare the fingerprint given back before using it.
func FetchTrust(ctx context.Context, core, want string) (*xosv1.TrustResponse, string, error) {
	var seen []*x509.Certificate
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain is checked below, against the root that the core names
		// and whose fingerprint the caller knows.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			seen = s.PeerCertificates
			return nil
		},
	}
	client := xosv1connect.NewCredentialsClient(rpc.TLSClient(cfg), "https://"+Address(core), rpc.ClientOptions()...)
	resp, err := client.Trust(ctx, connect.NewRequest(&xosv1.TrustRequest{}))
	if err != nil {
		return nil, "", xos.Errorf(xos.KindOf(err), "asking %s for its keys: %w", Address(core), err)
	}
	roots, err := parseRoots(resp.Msg.X509Roots)
	if err != nil {
		return nil, "", err
	}
	for _, root := range roots {
		fingerprint := Fingerprint(root.Raw)
		if want != "" && !strings.EqualFold(want, fingerprint) {
			continue
		}
		if err := verifies(seen, root); err != nil {
			return nil, "", err
		}
		return resp.Msg, fingerprint, nil
	}
	return nil, "", xos.Errorf(xos.Permission, "%s is not the core you mean: its root has another fingerprint than %s", Address(core), want).
		WithHint("compare with the fingerprint that «xos trust --show» prints on the core")
}

// verifies checks that the certificate shown is a core's, from this root.
func verifies(chain []*x509.Certificate, root *x509.Certificate) error {
	check := CoreTLS([]*x509.Certificate{root}, nil).VerifyConnection
	if err := check(tls.ConnectionState{PeerCertificates: chain}); err != nil {
		return xos.Errorf(xos.Permission, "the server is no core of the grid whose root it names: %w", err)
	}
	return nil
}

// CheckRoots says whether PEM texts are roots, at least one: xos.Invalid if not.
func CheckRoots(pems []string) error {
	_, err := parseRoots(pems)
	return err
}

func parseRoots(pems []string) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for _, text := range pems {
		for rest := []byte(text); ; {
			var block *pem.Block
			block, rest = pem.Decode(rest)
			if block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, xos.Errorf(xos.Invalid, "reading a root certificate: %w", err)
			}
			if !cert.IsCA {
				return nil, xos.Errorf(xos.Invalid, "the certificate of %.80q is no authority's", cert.Subject.CommonName)
			}
			roots = append(roots, cert)
		}
	}
	if len(roots) == 0 {
		return nil, xos.Errorf(xos.Invalid, "no root certificate")
	}
	return roots, nil
}

// LoadRoots reads the roots that a machine or user trusts; xos.NotFound, with
// a hint, if none were ever accepted.
func LoadRoots(dir string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(dir, "roots.pem"))
	if os.IsNotExist(err) {
		return nil, xos.Errorf(xos.NotFound, "this machine trusts no grid yet").WithHint("xos trust CORE, or xos up --join CORE --token TOKEN")
	} else if err != nil {
		return nil, err
	}
	return parseRoots([]string{string(data)})
}

// StoreTrust writes the keys to dir: roots.pem, ssh_user_ca.pub for sshd and
// known_hosts for ssh. Each file is replaced at once, if it changed.
func StoreTrust(dir string, t *xosv1.TrustResponse) error {
	if _, err := parseRoots(t.X509Roots); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var hosts []string
	for _, key := range append(append([]string{}, t.SshUserCas...), t.SshHostCas...) {
		// sshd and ssh read what is written line by line.
		_, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(key))
		if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 || strings.ContainsAny(strings.TrimSpace(key), "\r\n\x00") {
			return xos.Errorf(xos.Invalid, "%.40q is no key of an OpenSSH authority", key)
		}
	}
	for _, ca := range t.SshHostCas {
		hosts = append(hosts, "@cert-authority * "+strings.TrimSpace(ca))
	}
	for name, lines := range map[string][]string{
		"roots.pem":       t.X509Roots,
		"ssh_user_ca.pub": t.SshUserCas,
		"known_hosts":     hosts,
	} {
		var data []byte
		for _, line := range lines {
			data = append(append(data, strings.TrimSpace(line)...), '\n')
		}
		if err := ReplaceFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceFile gives path new content in one step, durably, unless it has that
// content already.
func ReplaceFile(path string, data []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return os.Chmod(path, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
