package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs/dir"
	"github.com/xtreemos/xos/xfs/mrc"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct{ name, text, wrong string }{
		{"nothing", "", ""},
		{"all", "core='c:1'\nstate='/s'\ndata='/d'\nlisten=':2'\nadvertise='h:3'\ncapacity=5\ntrust='/t'\n", ""},
		{"a word that means nothing", "capasity = 5\n", "capasity"},
		{"no port", "core = 'c'\n", "core"},
		{"a negative capacity", "capacity = -1\n", "negative"},
		{"no TOML", "core = \n", "osd.toml"},
	} {
		path := filepath.Join(t.TempDir(), "osd.toml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readConfig(path)
		if c.wrong == "" && err != nil || c.wrong != "" && (!xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	cfg, err := readConfig(filepath.Join(t.TempDir(), "none.toml"))
	if err != nil || cfg.Data != "/var/lib/xos/osd/data" || cfg.Listen != ":7445" {
		t.Errorf("defaults: %+v, %v", cfg, err)
	}
}

// TestWaitsUntilJoined: a daemon without a certificate waits for one, and then
// tells the core of itself.
func TestWaitsUntilJoined(t *testing.T) {
	authority := credtest.New(t)
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	directory := dir.New(dir.Config{}, db)
	m, err := mrc.New(t.Context(), mrc.Config{}, db, directory)
	if err != nil {
		t.Fatal(err)
	}
	directory.Use(m, m.Key())

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	v := authority.Verifier()
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewDirectoryHandler(directory.Handler(v), rpc.ServerOptions(log)...))
	go func() {
		ended <- rpc.ServeTLS(ctx, l, v.ServerTLS(credtest.Show(authority.Machine("core", vom.ServiceCore)), false), mux)
	}()

	state := t.TempDir()
	cfg := config{Core: l.Addr().String(), Bus: "127.0.0.1:1", State: state, Listen: "127.0.0.1:0", Advertise: "storage1:7445", Trust: state}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- run(ctx, cfg, log) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(cfg.Data, "id")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
	if _, err := directory.Pick(t.Context()); !xos.Is(err, xos.Unavailable) {
		t.Fatalf("known before it joined: %v", err)
	}
	join(t, authority, state)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		at, err := directory.Pick(t.Context())
		if err == nil {
			if id, _ := os.ReadFile(filepath.Join(cfg.Data, "id")); at.OSD != strings.TrimSpace(string(id)) || at.Address != cfg.Advertise {
				t.Errorf("announced %v, its id is %s", at, id)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never announced itself: %v", err)
		}
	}
}

// join puts a machine's credential where xos up puts it.
func join(t *testing.T, authority *credtest.Authority, state string) {
	t.Helper()
	cert := authority.Machine("storage1", vom.ServiceStorage)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ name, text string }{
		{"roots.pem", strings.Join(authority.Bundle().X509Roots, "")},
		{"key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))},
		{"cert.pem", chain(cert)},
	} {
		if err := os.WriteFile(filepath.Join(state, f.name), []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func chain(cert tls.Certificate) (text string) {
	for _, der := range cert.Certificate {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return text
}
