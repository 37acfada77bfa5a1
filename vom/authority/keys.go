package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
)

// The files of an authority's directory, which only its owner may read.
const (
	rootCert   = "root.pem"
	rootKey    = "root.key"
	issuerCert = "issuer.pem"
	issuerKey  = "issuer.key"
	userKey    = "ssh_user.key"
	hostKey    = "ssh_host.key"
	complete   = "complete" // written last: the set is whole
)

// validity of root and issuer: longer than any machine's life.
const validity = 20 * 365 * 24 * time.Hour

// keys are an authority's keys and certificates.
type keys struct {
	root, issuer     *x509.Certificate
	issuerKey        crypto.Signer
	sshUser, sshHost crypto.Signer
}

// loadKeys reads the keys in dir, and makes them if none were ever made. A set
// that is not whole is an error: to make one anew would cut off every machine
// and user of the grid.
//
// known is the fingerprint of the root that the records know, "" if they know
// none yet: with one, keys are never made anew, and others are refused.
func loadKeys(dir, known string, now time.Time) (*keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, complete)); errors.Is(err, fs.ErrNotExist) {
		if known != "" {
			return nil, lost(complete, errors.New("the keys of this grid are not in "+dir))
		}
		if err := makeKeys(dir, now); err != nil {
			return nil, err
		}
	}
	k := &keys{}
	for _, f := range []struct {
		name string
		to   **x509.Certificate
	}{{rootCert, &k.root}, {issuerCert, &k.issuer}} {
		block, err := readPEM(dir, f.name)
		if err != nil {
			return nil, err
		}
		if *f.to, err = x509.ParseCertificate(block); err != nil {
			return nil, lost(f.name, err)
		}
	}
	for _, f := range []struct {
		name string
		to   *crypto.Signer
	}{{issuerKey, &k.issuerKey}, {userKey, &k.sshUser}, {hostKey, &k.sshHost}} {
		block, err := readPEM(dir, f.name)
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(block)
		if err != nil {
			return nil, lost(f.name, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, lost(f.name, errors.New("it cannot sign"))
		}
		*f.to = signer
	}
	if err := k.fit(); err != nil {
		return nil, err
	}
	if known != "" && known != k.fingerprint() {
		return nil, lost(rootCert, errors.New("the records are of a grid with another root"))
	}
	return k, nil
}

// fingerprint is the SHA-256 of the root certificate, in hex.
func (k *keys) fingerprint() string {
	sum := sha256.Sum256(k.root.Raw)
	return hex.EncodeToString(sum[:])
}

// fit refuses files that are not of one set: what they sign nobody would
// believe.
func (k *keys) fit() error {
	pub, ok := k.issuerKey.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(k.issuer.PublicKey) {
		return lost(issuerKey, errors.New("it is not the key of "+issuerCert))
	}
	if err := k.root.CheckSignatureFrom(k.root); err != nil {
		return lost(rootCert, err)
	}
	if err := k.issuer.CheckSignatureFrom(k.root); err != nil {
		return lost(issuerCert, err)
	}
	return nil
}

func lost(name string, err error) error {
	return xos.Errorf(xos.Internal, "the authority's %s cannot be used: %w", name, err).WithHint("restore the directory from a backup")
}

func readPEM(dir, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, lost(name, err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, lost(name, errors.New("no PEM block"))
	}
	return block.Bytes, nil
}

// makeKeys makes a set. What an interrupted earlier attempt left is replaced:
// nobody can have seen it.
func makeKeys(dir string, now time.Time) error {
	root, err := newKey(dir, rootKey, ed25519Key)
	if err != nil {
		return err
	}
	issuer, err := newKey(dir, issuerKey, ed25519Key)
	if err != nil {
		return err
	}
	for _, name := range []string{userKey, hostKey} {
		if _, err := newKey(dir, name, p256Key); err != nil {
			return err
		}
	}
	rootTmpl := caTemplate("XtreemOS grid root", now)
	rootTmpl.MaxPathLen = 1
	rootDER, err := x509.CreateCertificate(rand.Reader, rootTmpl, rootTmpl, root.Public(), root)
	if err != nil {
		return xos.Errorf(xos.Internal, "making the root certificate: %w", err)
	}
	issuerTmpl := caTemplate("XtreemOS grid authority", now)
	issuerTmpl.MaxPathLenZero = true
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuerTmpl, rootTmpl, issuer.Public(), root)
	if err != nil {
		return xos.Errorf(xos.Internal, "making the issuer's certificate: %w", err)
	}
	for name, der := range map[string][]byte{rootCert: rootDER, issuerCert: issuerDER} {
		if err := writeSynced(dir, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
			return err
		}
	}
	return writeSynced(dir, complete, []byte("The keys beside this file are one set. Keep a copy of all of them in a safe place.\n"))
}

func caTemplate(name string, now time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func ed25519Key() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// p256Key is for what OpenSSH verifies: it does so whenever it reads a certificate,
// several times in a login, and its own code for ed25519 takes about 1 ms, a tenth of
// that the library that it has for this curve.
func p256Key() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newKey(dir, name string, generate func() (crypto.Signer, error)) (crypto.Signer, error) {
	key, err := generate()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeSynced(dir, name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func writeSynced(dir, name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return xos.Errorf(xos.Internal, "writing the authority's %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return xos.Errorf(xos.Internal, "writing the authority's %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return xos.Errorf(xos.Internal, "writing the authority's %s: %w", name, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// line gives a signer's public key as an authorized_keys line.
func line(s crypto.Signer) (string, error) {
	pub, err := ssh.NewPublicKey(s.Public())
	if err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(pub)), nil
}
