// Package wallet keeps a grid user's credentials on the machine in front of
// her: one key with an X.509 and an OpenSSH certificate for each account,
// below ~/.xos, readable by her only, and in her ssh-agent if she has one.
//
// The folder of an account is named like it, so that the OpenSSH client finds
// the key by itself: IdentityFile ~/.xos/%r/id_ed25519.
package wallet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/credential"
)

// Wallet is a folder of credentials, usually ~/.xos.
type Wallet struct{ dir string }

// Open gives the wallet at dir; the folder need not exist yet.
func Open(dir string) Wallet { return Wallet{dir} }

// Default gives the calling user's wallet.
func Default() (Wallet, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return Wallet{}, xos.Errorf(xos.Invalid, "finding your home directory: %w", err)
	}
	return Open(filepath.Join(home, ".xos")), nil
}

// Dir is where the wallet is.
func (w Wallet) Dir() string { return w.dir }

// Request is a new key and the request to certify it.
type Request struct {
	key ed25519.PrivateKey
	// CSR is the PKCS #10 request, DER; it proves possession of the key.
	CSR []byte
}

// NewRequest makes a key for an account.
func NewRequest(a xos.Account) (*Request, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: a.String()},
	}, key)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "making a certificate request: %w", err)
	}
	return &Request{key: key, CSR: csr}, nil
}

// Credential is an account's key with its certificates.
type Credential struct {
	Account xos.Account
	// TLS is the key with the X.509 chain.
	TLS tls.Certificate
	// SSH is the OpenSSH certificate on the same key.
	SSH      *ssh.Certificate
	NotAfter time.Time
}

// Store puts the answer to a request into the wallet, in place of what the
// account had, and makes the account the current one. The new credential is
// complete on disk before the old one is gone.
func (w Wallet) Store(a xos.Account, r *Request, chain [][]byte, sshLine string) (Credential, error) {
	if len(chain) == 0 {
		return Credential{}, xos.Errorf(xos.Invalid, "the answer has no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Credential{}, xos.Errorf(xos.Invalid, "reading the certificate: %w", err)
	}
	if pub, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(r.key.Public()) {
		return Credential{}, xos.Errorf(xos.Invalid, "the certificate is for another key")
	}
	if id, err := credential.FromX509(leaf); err != nil {
		return Credential{}, err
	} else if id.Account != a {
		return Credential{}, xos.Errorf(xos.Invalid, "the certificate is for %s, not for %s", id.Account, a)
	}
	cert, err := parseSSH(sshLine)
	if err != nil {
		return Credential{}, err
	}
	if id, err := credential.FromSSH(cert); err != nil {
		return Credential{}, err
	} else if own, err := ssh.NewPublicKey(r.key.Public()); err != nil || id.Account != a || !bytes.Equal(own.Marshal(), cert.Key.Marshal()) {
		return Credential{}, xos.Errorf(xos.Invalid, "the OpenSSH certificate is not for %s, or for another key", a)
	}
	sshKey, err := ssh.MarshalPrivateKey(r.key, a.String())
	if err != nil {
		return Credential{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		return Credential{}, err
	}
	var chainPEM []byte
	for _, der := range chain {
		chainPEM = append(chainPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	files := map[string][]byte{
		"key.pem":             pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		"cert.pem":            chainPEM,
		"id_ed25519":          pem.EncodeToMemory(sshKey),
		"id_ed25519.pub":      ssh.MarshalAuthorizedKey(cert.Key),
		"id_ed25519-cert.pub": append(bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert)), " "+a.String()+"\n"...),
	}
	if err := w.replace(a, files); err != nil {
		return Credential{}, xos.Errorf(xos.KindOf(err), "writing %s: %w", w.path(a), err)
	}
	return w.Load(a)
}

func (w Wallet) path(a xos.Account) string { return filepath.Join(w.dir, a.String()) }

// Current gives the account of the last Store; xos.NotFound if there is none.
func (w Wallet) Current() (xos.Account, error) {
	target, err := os.Readlink(filepath.Join(w.dir, "current"))
	if err != nil {
		return xos.Account{}, xos.Errorf(xos.NotFound, "you are not logged in to the grid").WithHint("xos login USER@VO")
	}
	return xos.ParseAccount(target)
}

// Accounts lists what the wallet holds.
func (w Wallet) Accounts() []xos.Account {
	entries, _ := os.ReadDir(w.dir)
	var list []xos.Account
	for _, e := range entries {
		if a, err := xos.ParseAccount(e.Name()); err == nil && e.IsDir() {
			list = append(list, a)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].String() < list[j].String() })
	return list
}

// Load reads an account's credential; it does not judge its validity.
func (w Wallet) Load(a xos.Account) (Credential, error) {
	dir := w.path(a)
	var files map[string][]byte
	var err error
	for range 16 { // logins at the same time
		if files, err = readTogether(dir, "cert.pem", "key.pem", "id_ed25519-cert.pub"); !os.IsNotExist(err) {
			break
		}
		if _, missing := os.Stat(dir); missing != nil {
			break
		}
	}
	if os.IsNotExist(err) {
		return Credential{}, xos.Errorf(xos.NotFound, "no credential for %s", a).WithHint("xos login %s", a)
	} else if err != nil {
		return Credential{}, xos.Errorf(xos.Invalid, "reading %s: %w", dir, err).WithHint("xos login %s", a)
	}
	pair, err := tls.X509KeyPair(files["cert.pem"], files["key.pem"])
	if err != nil {
		return Credential{}, xos.Errorf(xos.Invalid, "reading %s: %w", dir, err).WithHint("xos login %s", a)
	}
	cert, err := parseSSH(string(files["id_ed25519-cert.pub"]))
	if err != nil {
		return Credential{}, err
	}
	return Credential{Account: a, TLS: pair, SSH: cert, NotAfter: pair.Leaf.NotAfter}, nil
}

// readTogether reads files of one folder, even if another takes its place
// meanwhile. One that was removed then lacks some.
func readTogether(dir string, names ...string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files := map[string][]byte{}
	for _, name := range names {
		if files[name], err = root.ReadFile(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Remove destroys an account's credential; it is no error if there is none.
func (w Wallet) Remove(a xos.Account) error {
	if current, err := w.Current(); err == nil && current == a {
		if err := os.Remove(filepath.Join(w.dir, "current")); err != nil {
			return err
		}
	}
	return os.RemoveAll(w.path(a))
}

func parseSSH(line string) (*ssh.Certificate, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the OpenSSH certificate: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, xos.Errorf(xos.Invalid, "the answer holds a plain key in place of an OpenSSH certificate")
	}
	return cert, nil
}
