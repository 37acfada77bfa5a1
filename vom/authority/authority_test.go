package authority_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/vomtest"
)

func memory(t *testing.T) kv.Store {
	t.Helper()
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// files reads a directory.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	return all
}

// A grid's keys are made once. Whatever is lost of them afterwards, no others
// take their place.
func TestKeysAreMadeOnce(t *testing.T) {
	dir, db := filepath.Join(t.TempDir(), "ca"), memory(t)
	a, err := authority.Open(dir, db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	good := files(t, dir)
	b, err := authority.Open(dir, db, time.Now)
	if err != nil || !bytes.Equal(a.Root(), b.Root()) || a.Trust().SSHUserCAs[0] != b.Trust().SSHUserCAs[0] {
		t.Fatalf("opened again: %v", err)
	}
	other := filepath.Join(t.TempDir(), "ca")
	if _, err := authority.Open(other, memory(t), time.Now); err != nil {
		t.Fatal(err)
	}
	foreign := files(t, other)
	curve, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	noSigner := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	put := func(data map[string][]byte) {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, d := range data {
			if err := os.WriteFile(filepath.Join(dir, name), d, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	with := func(name string, data []byte) map[string][]byte {
		changed := map[string][]byte{}
		for n, d := range good {
			changed[n] = d
		}
		if changed[name] = data; data == nil {
			delete(changed, name)
		}
		return changed
	}
	cases := map[string]map[string][]byte{"nothing": nil, "another grid's": foreign}
	for name := range good {
		if name == "root.key" {
			continue // kept for a change of the issuer; not needed to run
		}
		cases[name+" lost"] = with(name, nil)
		if name == "complete" {
			continue
		}
		cases[name+" empty"] = with(name, []byte{})
		cases[name+" cut"] = with(name, good[name][:len(good[name])/2])
		cases[name+" cannot sign"] = with(name, noSigner)
	}
	for _, name := range []string{"issuer.key", "issuer.pem", "root.pem"} {
		cases[name+" of another grid"] = with(name, foreign[name])
	}
	for name, data := range cases {
		put(data)
		if _, err := authority.Open(dir, db, time.Now); !xos.Is(err, xos.Internal) {
			t.Errorf("%s: %v", name, err)
		}
		for n, d := range files(t, dir) {
			if !bytes.Equal(d, data[n]) {
				t.Errorf("%s: %s was changed", name, n)
			}
		}
	}
	put(good)
	if b, err := authority.Open(dir, db, time.Now); err != nil || !bytes.Equal(a.Root(), b.Root()) {
		t.Errorf("restored: %v", err)
	}
}

// What a crash in the very first start left is replaced.
func TestInterruptedMaking(t *testing.T) {
	dir, db := filepath.Join(t.TempDir(), "ca"), memory(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.key", "issuer.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := authority.Open(dir, db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	// Whole on disk, but the records do not know it yet.
	if b, err := authority.Open(dir, memory(t), time.Now); err != nil || !bytes.Equal(a.Root(), b.Root()) {
		t.Errorf("a crash before the record: %v", err)
	}
}

func identity(now time.Time) vom.Identity {
	return vom.Identity{
		Attributes: xos.Attributes{Account: xos.Account{User: "alice", VO: "physics"}, Groups: []xos.GroupName{"higgs"}, Roles: []xos.RoleName{"analyst"}},
		Serial:     "4711", Issued: now, NotBefore: now.Add(-30 * time.Second).Truncate(time.Second), NotAfter: now.Add(time.Hour).Truncate(time.Second),
	}
}

// Nothing that a request asks for is certified but its key.
func TestRequestsAskInVain(t *testing.T) {
	g := vomtest.Start(t)
	der, key := vomtest.Request(t, func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{CommonName: "root", Organization: []string{"admins"}}
		r.DNSNames, r.EmailAddresses = []string{"core"}, []string{"root@core"}
		r.IPAddresses, r.URIs = []net.IP{net.IPv4(10, 0, 0, 1)}, []*url.URL{{Scheme: "spiffe", Host: "core"}}
		exts, err := credential.MachineExtensions(vom.ServiceCore, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		basic := pkix.Extension{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}} // a CA
		r.ExtraExtensions = append(exts, basic)
	})
	csr, pub, err := authority.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	id := identity(time.Now())
	chain, err := g.Authority.User(t.Context(), csr, id)
	if err != nil {
		t.Fatal(err)
	}
	c := vomtest.Parse(t, chain)[0]
	if c.IsCA || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses)+len(c.URIs) > 0 || len(c.Subject.Organization) > 0 ||
		c.Subject.CommonName != "alice@physics" || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 1 ||
		c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || c.SerialNumber.String() != "4711" || !c.NotAfter.Equal(id.NotAfter) {
		t.Errorf("certified %+v", c)
	}
	if _, err := credential.MachineFromX509(c); !xos.Is(err, xos.Invalid) {
		t.Errorf("a user's certificate speaks for a machine: %v", err)
	}
	line, err := g.Authority.SSHUser(t.Context(), pub, id)
	if err != nil {
		t.Fatal(err)
	}
	s, err := credential.ParseSSH([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.CriticalOptions) > 0 || len(s.ValidPrincipals) != 1 || s.ValidPrincipals[0] != "alice@physics" || s.Serial != 4711 {
		t.Errorf("certified %+v", s)
	}
	for _, e := range []string{"permit-X11-forwarding", "no-touch-required"} {
		if _, ok := s.Extensions[e]; ok {
			t.Errorf("it lets her %s", e)
		}
	}
	if signer, err := ssh.NewSignerFromKey(key); err != nil || !bytes.Equal(signer.PublicKey().Marshal(), s.Key.Marshal()) {
		t.Errorf("another key was certified: %v", err)
	}
}

// What sshd verifies at each login is quick to verify; a grid that was made with
// other keys goes on with them.
func TestSSHKeys(t *testing.T) {
	dir, db := filepath.Join(t.TempDir(), "ca"), memory(t)
	signed := func() string {
		t.Helper()
		a, err := authority.Open(dir, db, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		_, key := vomtest.Request(t)
		now := time.Now()
		line, err := a.SSHUser(t.Context(), key.Public().(ed25519.PublicKey), vom.Identity{Attributes: xos.Attributes{Account: xos.Account{User: "alice", VO: "physics"}}, Serial: "4711", Issued: now, NotBefore: now, NotAfter: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		cert, err := credential.ParseSSH([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		trusted, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.Trust().SSHUserCAs[0]))
		if err != nil || !bytes.Equal(trusted.Marshal(), cert.SignatureKey.Marshal()) {
			t.Fatalf("signed by a key that nobody trusts: %v", err)
		}
		return cert.Signature.Format
	}
	if got := signed(); got != ssh.KeyAlgoECDSA256 {
		t.Errorf("signed by %s", got)
	}
	_, old, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ssh_user.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := signed(); got != ssh.KeyAlgoED25519 {
		t.Errorf("with a former grid's key, signed by %s", got)
	}
}

func TestBadRequests(t *testing.T) {
	good, _ := vomtest.Request(t)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-3] ^= 1
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, curve)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		der  []byte
		want xos.Kind
	}{
		"nothing":       {nil, xos.Invalid},
		"no request":    {[]byte("-----BEGIN CERTIFICATE REQUEST-----"), xos.Invalid},
		"more behind":   {append(bytes.Clone(good), 0), xos.Invalid},
		"not her key":   {flipped, xos.Permission},
		"another curve": {ec, xos.NotSupported},
		"large":         {make([]byte, 8193), xos.TooLarge},
	} {
		if _, _, err := authority.ParseRequest(tt.der); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// full is a store that takes nothing more.
type full struct{ kv.Store }

func (full) Update(context.Context, func(kv.Txn) error) error {
	return xos.Errorf(xos.TooLarge, "disk full")
}

// What cannot be kept on record is not signed; nor is what no certificate can
// say.
func TestNothingIsSignedUnrecorded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	db := memory(t)
	if _, err := authority.Open(dir, db, time.Now); err != nil {
		t.Fatal(err)
	}
	ok, err := authority.Open(dir, db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Open(filepath.Join(t.TempDir(), "ca"), full{memory(t)}, time.Now); !xos.Is(err, xos.TooLarge) {
		t.Errorf("opened without a record: %v", err)
	}
	der, _ := vomtest.Request(t)
	csr, pub, err := authority.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*vom.Identity){
		"no user": func(id *vom.Identity) { id.User = "" }, "root": func(id *vom.Identity) { id.User = "root" },
		"a newline": func(id *vom.Identity) { id.User = "a\nb" }, "no issue": func(id *vom.Identity) { id.Issued = time.Time{} },
		"no serial": func(id *vom.Identity) { id.Serial = "" }, "a serial of words": func(id *vom.Identity) { id.Serial = "one" },
		"unsorted groups": func(id *vom.Identity) { id.Groups = []xos.GroupName{"b", "a"} },
	} {
		id := identity(time.Now())
		edit(&id)
		if _, err := ok.User(t.Context(), csr, id); err == nil {
			t.Errorf("X.509 with %s", name)
		}
		if _, err := ok.SSHUser(t.Context(), pub, id); err == nil {
			t.Errorf("OpenSSH with %s", name)
		}
	}
	db.Close()
	if _, err := ok.User(t.Context(), csr, identity(time.Now())); err == nil {
		t.Error("X.509 without a record")
	}
	if _, err := ok.SSHUser(t.Context(), pub, identity(time.Now())); err == nil {
		t.Error("OpenSSH without a record")
	}
}

func FuzzParseRequest(f *testing.F) {
	der, _ := vomtest.Request(f)
	f.Add(der)
	f.Add(der[:len(der)/2])
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		csr, pub, err := authority.ParseRequest(b)
		if err == nil && (csr == nil || len(pub) != 32) {
			t.Fatalf("%v, %v", csr, pub)
		}
	})
}
