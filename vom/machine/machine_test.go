package machine_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/machine"
	"github.com/xtreemos/xos/vom/vomtest"
)

func TestTokens(t *testing.T) {
	print := strings.Repeat("ab", 32)
	for text, want := range map[string]bool{
		"id.secret." + print: true, " id.secret." + print + "\n": true,
		"": false, "id": false, "id.secret": false, "id.secret.": false, print: false,
		"id.secret." + print[1:]: false, "id.secret." + print + ".x": false, "id.secret." + strings.Repeat("x", 64): false,
		"id..secret." + print: false, "." + "." + print: false,
	} {
		got, err := machine.Token(text).Fingerprint()
		if want && (err != nil || got != print) || !want && !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add("id.secret." + strings.Repeat("ab", 32))
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := machine.Token(text).Fingerprint()
		if err == nil && (len(got) != 64 || strings.Trim(got, "0123456789abcdef") != "") {
			t.Fatalf("%q has the fingerprint %q", text, got)
		}
	})
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"core": "core:7443", "core:1": "core:1", "10.0.0.1": "10.0.0.1:7443", "::1": "[::1]:7443", "[::1]": "[::1]:7443", "[::1]:1": "[::1]:1",
	} {
		if got := machine.Address(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// A machine joins the core that its token names, and no other.
func TestJoinTheRightCore(t *testing.T) {
	g, foreign := vomtest.Start(t), vomtest.Start(t)
	address, other := g.Serve(nil), foreign.Serve(nil)
	join := func(core, token, name string) (*machine.Joined, error) {
		return machine.Join(t.Context(), machine.JoinConfig{Core: core, Token: machine.Token(token), Name: name, Service: vom.ServiceNode, Addresses: []net.IP{}})
	}
	token := g.JoinToken(1)
	for name, tt := range map[string]struct {
		core, token, name string
		want              xos.Kind
	}{
		"another grid's core":      {other, token, "node1", xos.Permission},
		"a bad name":               {address, token, "root", xos.Invalid},
		"a name of two lines":      {address, token, "a\nb", xos.Invalid},
		"no core":                  {"127.0.0.1:1", token, "node1", xos.Unavailable},
		"no token":                 {address, "", "node1", xos.Invalid},
		"another grid's token":     {address, foreign.JoinToken(1), "node1", xos.Permission},
		"the secret of a stranger": {address, "abcdefgh.x." + token[strings.LastIndex(token, ".")+1:], "node1", xos.Permission},
	} {
		if _, err := join(tt.core, tt.token, tt.name); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	j, err := join(address, token, "node1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join(address, token, "node2"); !xos.Is(err, xos.Permission) {
		t.Errorf("the token's second use: %v", err)
	}
	dir := t.TempDir()
	if err := j.Store(dir); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := g.Verifier.Machine(credtest.Chain(t, pair)); err != nil || m.Node != "node1" {
		t.Errorf("it is %v, %v", m, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key may be read by others: %v, %v", info.Mode(), err)
	}
}

// impostor names another grid's root beside its own certificate.
type impostor struct {
	xosv1connect.UnimplementedCredentialsHandler
	answer *xosv1.TrustResponse
}

func (i impostor) Trust(context.Context, *connect.Request[xosv1.TrustRequest]) (*connect.Response[xosv1.TrustResponse], error) {
	return connect.NewResponse(i.answer), nil
}

func serve(t *testing.T, cert tls.Certificate, answer *xosv1.TrustResponse) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	_, handler := xosv1connect.NewCredentialsHandler(impostor{answer: answer})
	go func() {
		done <- rpc.ServeTLS(ctx, l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}, handler)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// A fingerprint is believed only with a certificate of a core that its root
// has signed.
func TestImpostors(t *testing.T) {
	a, own := credtest.New(t), credtest.New(t)
	trust := func(roots ...string) *xosv1.TrustResponse { return &xosv1.TrustResponse{X509Roots: roots} }
	root, theirs := a.Bundle().X509Roots[0], own.Bundle().X509Roots[0]
	want, err := machine.LoadRoots(write(t, root))
	if err != nil {
		t.Fatal(err)
	}
	print := machine.Fingerprint(want[0].Raw)
	for name, tt := range map[string]struct {
		cert   tls.Certificate
		answer *xosv1.TrustResponse
		want   xos.Kind
	}{
		"the core":                {a.Machine("core", vom.ServiceCore), trust(root), 0},
		"one with another root":   {own.Machine("core", vom.ServiceCore), trust(theirs), xos.Permission},
		"one that names the root": {own.Machine("core", vom.ServiceCore), trust(root), xos.Permission},
		"one that names both":     {own.Machine("core", vom.ServiceCore), trust(theirs, root), xos.Permission},
		"a node of the grid":      {a.Machine("node1", vom.ServiceNode), trust(root), xos.Permission},
		"a user of the grid":      {a.X509User("alice@physics"), trust(root), xos.Permission},
		"one that names nothing":  {a.Machine("core", vom.ServiceCore), trust(), xos.Invalid},
		"one that names nonsense": {a.Machine("core", vom.ServiceCore), trust("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), xos.Invalid},
		"a core that has expired": {a.Machine("core", vom.ServiceCore, expired()), trust(root), xos.Permission},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a server takes a second to end
			_, got, err := machine.FetchTrust(t.Context(), serve(t, tt.cert, tt.answer), strings.ToUpper(print))
			if tt.want == 0 && (err != nil || got != print) || tt.want != 0 && !xos.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func expired() credtest.Option {
	return credtest.Issued(time.Now().Add(-time.Hour), time.Minute)
}

func write(t *testing.T, roots string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "roots.pem"), []byte(roots), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestStoreTrust(t *testing.T) {
	a := credtest.New(t)
	b := a.Bundle()
	good := func() *xosv1.TrustResponse {
		return &xosv1.TrustResponse{X509Roots: b.X509Roots, SshUserCas: b.SSHUserCAs, SshHostCas: b.SSHHostCAs}
	}
	dir := filepath.Join(t.TempDir(), "trust")
	if _, err := machine.LoadRoots(dir); !xos.Is(err, xos.NotFound) {
		t.Errorf("nothing trusted yet: %v", err)
	}
	if err := machine.StoreTrust(dir, good()); err != nil {
		t.Fatal(err)
	}
	read := func() (all string) {
		for _, name := range []string{"roots.pem", "ssh_user_ca.pub", "known_hosts"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all += string(data)
		}
		return all
	}
	want := read()
	if strings.Count(want, "\n@cert-authority * ecdsa-sha2-nistp256 ") != 1 {
		t.Errorf("written: %s", want)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Machine("core", vom.ServiceCore).Certificate[0]}))
	for name, edit := range map[string]func(*xosv1.TrustResponse){
		"no roots":              func(r *xosv1.TrustResponse) { r.X509Roots = nil },
		"a leaf for a root":     func(r *xosv1.TrustResponse) { r.X509Roots = []string{leaf} },
		"a user key of 2 lines": func(r *xosv1.TrustResponse) { r.SshUserCas = []string{b.SSHUserCAs[0] + b.SSHHostCAs[0]} },
		"a host key of 2 lines": func(r *xosv1.TrustResponse) {
			r.SshHostCas = []string{strings.TrimSpace(b.SSHHostCAs[0]) + "\n* ssh-ed25519 AAAA"}
		},
		"options before a key": func(r *xosv1.TrustResponse) { r.SshUserCas = []string{`command="x" ` + b.SSHUserCAs[0]} },
		"no key":               func(r *xosv1.TrustResponse) { r.SshUserCas = []string{"ssh-ed25519"} },
	} {
		r := good()
		edit(r)
		if err := machine.StoreTrust(dir, r); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if read() != want {
			t.Fatalf("%s was written", name)
		}
	}
}

// A file has the old content or the new one, with its mode, and nothing is
// left beside it.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"a", "b", "b", ""} {
		if err := machine.ReplaceFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, serr := os.Stat(path)
		if err != nil || serr != nil || string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("%q: %q, %v, %v", text, got, err, info.Mode())
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	if err := machine.ReplaceFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "mine" {
		t.Errorf("written through a link: %q, %v", got, err)
	}
	if err := machine.ReplaceFile(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("written into no folder")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left: %v, %v", list, err)
	}
}
