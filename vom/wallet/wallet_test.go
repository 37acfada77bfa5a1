package wallet_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/wallet"
)

var alice = xos.Account{User: "alice", VO: "physics"}

// answered is a request with what an authority answered.
type answered struct {
	*wallet.Request
	chain [][]byte
	line  string
}

// publicKey is what a request asks to certify.
func publicKey(t *testing.T, r *wallet.Request) ed25519.PublicKey {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatalf("the request is none: %v", err)
	}
	return csr.PublicKey.(ed25519.PublicKey)
}

func answer(t *testing.T, a *credtest.Authority, who string, opts ...credtest.Option) answered {
	t.Helper()
	r, err := wallet.NewRequest(alice)
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, credtest.PublicKey(publicKey(t, r)))
	line, _ := a.SSHUser(who, opts...)
	return answered{r, a.X509User(who, opts...).Certificate, string(ssh.MarshalAuthorizedKey(line))}
}

func TestStoreAndLoad(t *testing.T) {
	a := credtest.New(t)
	dir := filepath.Join(t.TempDir(), ".xos")
	w := wallet.Open(dir)
	if _, err := w.Current(); !xos.Is(err, xos.NotFound) {
		t.Errorf("current of nothing: %v", err)
	}
	if _, err := w.Load(alice); !xos.Is(err, xos.NotFound) {
		t.Errorf("load of nothing: %v", err)
	}
	if err := w.Remove(alice); err != nil || len(w.Accounts()) != 0 {
		t.Errorf("remove of nothing: %v", err)
	}
	for range 3 { // anew each time
		r := answer(t, a, "alice@physics")
		c, err := w.Store(alice, r.Request, r.chain, "  "+r.line+"\nssh-ed25519 AAAA evil\n")
		if err != nil {
			t.Fatal(err)
		}
		if id, err := a.Verifier().X509(credtest.Chain(t, c.TLS)); err != nil || id.Account != alice {
			t.Errorf("X.509: %v, %v", id, err)
		}
		if _, err := a.Verifier().SSH(c.SSH, "alice@physics"); err != nil {
			t.Errorf("OpenSSH: %v", err)
		}
		if !publicKey(t, r.Request).Equal(c.TLS.PrivateKey.(ed25519.PrivateKey).Public()) {
			t.Error("another key is kept")
		}
	}
	line, err := os.ReadFile(filepath.Join(dir, "alice@physics", "id_ed25519-cert.pub"))
	if err != nil || strings.Count(string(line), "\n") != 1 || !strings.HasSuffix(string(line), " alice@physics\n") {
		t.Errorf("ssh is shown %q, %v", line, err)
	}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if info.Mode()&os.ModeSymlink == 0 && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		if strings.Contains(path, ".new-") {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got, err := w.Current(); err != nil || got != alice {
		t.Errorf("current %v, %v", got, err)
	}
	if err := w.Remove(alice); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Current(); !xos.Is(err, xos.NotFound) {
		t.Errorf("current after the removal: %v", err)
	}
}

// What does not belong to the request is not kept, and what was there stays.
func TestWrongAnswers(t *testing.T) {
	a := credtest.New(t)
	w := wallet.Open(t.TempDir())
	good, other := answer(t, a, "alice@physics"), answer(t, a, "alice@physics")
	if _, err := w.Store(alice, good.Request, good.chain, good.line); err != nil {
		t.Fatal(err)
	}
	bob := answer(t, a, "bob@physics")
	plain, _, _ := strings.Cut(good.line, "-cert-v01")
	for name, r := range map[string]answered{
		"nothing":                        {other.Request, nil, other.line},
		"no certificate":                 {other.Request, [][]byte{[]byte("x")}, other.line},
		"no OpenSSH certificate":         {other.Request, other.chain, ""},
		"a plain key":                    {other.Request, other.chain, plain + " AAAA"},
		"a certificate of another key":   {other.Request, good.chain, other.line},
		"OpenSSH's is of another key":    {other.Request, other.chain, good.line},
		"a certificate of bob's":         bob,
		"only OpenSSH's is bob's":        {bob.Request, answer(t, a, "alice@physics").chain, bob.line},
		"an authority's own certificate": {other.Request, other.chain[1:], other.line},
	} {
		if _, err := w.Store(alice, r.Request, r.chain, r.line); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		c, err := w.Load(alice)
		if err != nil || !publicKey(t, good.Request).Equal(c.TLS.PrivateKey.(ed25519.PrivateKey).Public()) {
			t.Fatalf("after %s: %v", name, err)
		}
	}
}

// Logins of the same account and of others at the same time leave whole
// credentials only, and so does one that was killed.
func TestLoginsAtTheSameTime(t *testing.T) {
	a := credtest.New(t)
	dir := t.TempDir()
	for _, left := range []string{".new-123", ".new-123.old"} {
		if err := os.Mkdir(filepath.Join(dir, left), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, left, "key.pem"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, ".new-current")); err != nil {
		t.Fatal(err)
	}
	first := answer(t, a, "alice@physics")
	if _, err := wallet.Open(dir).Store(alice, first.Request, first.chain, first.line); err != nil {
		t.Fatal(err)
	}
	var stores, loads sync.WaitGroup
	done := make(chan struct{})
	loads.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := os.Stat(filepath.Join(dir, "alice@physics", "key.pem")); err != nil {
				t.Errorf("for a moment there is no key: %v", err)
				return
			}
			if _, err := wallet.Open(dir).Load(alice); err != nil {
				t.Errorf("for a moment there is no credential: %v", err)
				return
			}
		}
	})
	for i := range 40 {
		r := answer(t, a, "alice@physics")
		stores.Go(func() {
			if _, err := wallet.Open(dir).Store(alice, r.Request, r.chain, r.line); err != nil {
				t.Errorf("login %d: %v", i, err)
			}
		})
	}
	stores.Wait()
	close(done)
	loads.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != "[.lock alice@physics current]" {
		t.Errorf("in the wallet are %v", names)
	}
	if list := wallet.Open(dir).Accounts(); len(list) != 1 || list[0] != alice {
		t.Errorf("accounts %v", list)
	}
}

// Whatever lies in the folder, it is a clear error or no account.
func TestDamagedWallets(t *testing.T) {
	a := credtest.New(t)
	dir := t.TempDir()
	w := wallet.Open(dir)
	r := answer(t, a, "alice@physics")
	if _, err := w.Store(alice, r.Request, r.chain, r.line); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"key.pem", "cert.pem", "id_ed25519-cert.pub"} {
		path := filepath.Join(dir, "alice@physics", name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{nil, good[:len(good)/2], []byte("\x00\xff")} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Load(alice); !xos.Is(err, xos.Invalid) {
				t.Errorf("%s of %d bytes: %v", name, len(bad), err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"root@physics", "a b@c", "x", "bob@physics.txt"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if list := w.Accounts(); len(list) != 2 { // alice, and bob of physics.txt
		t.Errorf("accounts %v", list)
	}
	for _, target := range []string{"../alice@physics", "root@physics", "/etc"} {
		os.Remove(filepath.Join(dir, "current"))
		if err := os.Symlink(target, filepath.Join(dir, "current")); err != nil {
			t.Fatal(err)
		}
		if got, err := w.Current(); err == nil {
			t.Errorf("current → %s is %v", target, got)
		}
	}
}

func TestAgent(t *testing.T) {
	a := credtest.New(t)
	keys := agent.NewKeyring()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(keys, c)
		}
	}()
	w := wallet.Open(t.TempDir())
	keep := func(who string, opts ...credtest.Option) wallet.Credential {
		acc, err := xos.ParseAccount(who)
		if err != nil {
			t.Fatal(err)
		}
		r := answer(t, a, who, opts...)
		c, err := w.Store(acc, r.Request, r.chain, r.line)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	count := func(comment string) (n int) {
		list, err := keys.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			if k.Comment == comment {
				n++
			}
		}
		return n
	}
	_, own, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: own, Comment: "alice@physics"}); err != nil { // merely called so
		t.Fatal(err)
	}
	for range 2 {
		if err := wallet.AddToAgent(socket, keep("alice@physics")); err != nil {
			t.Fatal(err)
		}
	}
	if err := wallet.AddToAgent(socket, keep("alice@physics2")); err != nil {
		t.Fatal(err)
	}
	if n := count("alice@physics"); n != 2 {
		t.Errorf("%d keys of hers", n)
	}
	if err := wallet.AddToAgent(socket, keep("alice@physics", credtest.Issued(time.Now().Add(-time.Hour), time.Minute))); !xos.Is(err, xos.Expired) {
		t.Errorf("expired: %v", err)
	}
	if err := wallet.RemoveFromAgent(socket, alice); err != nil {
		t.Fatal(err)
	}
	if count("alice@physics") != 1 || count("alice@physics2") != 1 {
		t.Error("the wrong keys were removed")
	}
	if err := wallet.RemoveFromAgent(socket+"x", alice); !xos.Is(err, xos.Unavailable) {
		t.Errorf("no agent: %v", err)
	}
}
