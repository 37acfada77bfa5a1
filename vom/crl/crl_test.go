package crl_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/crl"
	"github.com/xtreemos/xos/vom/vomtest"
)

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d, %v", url, resp.StatusCode, err)
	}
	return data
}

// TestCRL has OpenSSL refuse by our list what the grid refuses, and nothing else.
func TestCRL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		need.Missing(t, "openssl", "apt install openssl")
	}
	g := vomtest.Start(t)
	mux := http.NewServeMux()
	crl.New(g.Records, g.Authority, g.Now, slog.New(slog.DiscardHandler)).Handle(mux)
	server := httptest.NewServer(mux)
	defer server.Close()

	_, alice := g.Issue("alice@physics", g.Member("alice@physics"))
	_, bob := g.Issue("bob@physics", g.Member("bob@physics"))
	node := g.Join("node1", vom.ServiceNode)
	first := get(t, server.URL+"/ca/crl.der")
	if again := get(t, server.URL+"/ca/crl.der"); !bytes.Equal(first, again) {
		t.Error("signed anew without need")
	}
	ctx := t.Context()
	if err := g.Records.RemoveMemberTo(ctx, xos.Account{User: "alice", VO: "physics"}, vom.FateFreeze, "", "by root"); err != nil {
		t.Fatal(err)
	}
	if err := g.Records.RemoveMachine(ctx, "node1", "", "by root"); err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(get(t, server.URL+"/ca/crl.der"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := x509.ParseRevocationList(first)
	if err != nil || list.Number.Cmp(old.Number) <= 0 {
		t.Errorf("number %v after %v (%v)", list.Number, old.Number, err)
	}
	reasons := map[string]int{}
	for _, e := range list.RevokedCertificateEntries {
		reasons[e.SerialNumber.String()] = e.ReasonCode
	}
	if len(reasons) != 2 || reasons[alice.Leaf.SerialNumber.String()] != 6 || reasons[node.Leaf.SerialNumber.String()] != 5 {
		t.Errorf("entries %v", reasons)
	}

	dir := t.TempDir()
	trust := append([]byte(g.Authority.Trust().X509Roots[0]), get(t, server.URL+"/ca/issuer.pem")...)
	for name, data := range map[string][]byte{"trust.pem": trust, "crl.pem": get(t, server.URL+"/ca/crl.pem")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
		good bool
	}{{"a member", bob.Leaf, true}, {"a removed member", alice.Leaf, false}, {"a removed machine", node.Leaf, false}} {
		path := filepath.Join(dir, "leaf.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tt.leaf.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(openssl, "verify", "-crl_check", "-CAfile", filepath.Join(dir, "trust.pem"), "-CRLfile", filepath.Join(dir, "crl.pem"), path).CombinedOutput()
		if (err == nil) != tt.good {
			t.Errorf("%s: %v %s", tt.name, err, out)
		}
	}
	// The list is renewed long before its end.
	g.Pass(2 * time.Minute)
	if later := get(t, server.URL+"/ca/crl.der"); bytes.Equal(later, get(t, server.URL+"/ca/crl.pem")) {
		t.Error("PEM is DER")
	} else if l, err := x509.ParseRevocationList(later); err != nil || !l.NextUpdate.After(list.NextUpdate) {
		t.Errorf("not renewed: %v", err)
	}
}
