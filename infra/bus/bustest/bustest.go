// Package bustest gives tests a bus: the real server on loopback, with mutual
// TLS from a certificate authority that lives as long as the test.
package bustest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/nats"
	"github.com/xtreemos/xos/infra/bus/natsd"
)

// Bus is a bus for one test, which closes it with all its connections.
type Bus struct {
	t      testing.TB
	addr   string
	server *natsd.Server

	caKey  *ecdsa.PrivateKey
	caCert *x509.Certificate
	roots  *x509.CertPool

	mu      sync.Mutex
	allowed map[string]grant
}

type grant struct{ pub, sub []string }

// New starts a bus.
func New(t testing.TB) *Bus {
	t.Helper()
	b := &Bus{t: t, allowed: map[string]grant{}, roots: x509.NewCertPool()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.caKey = key
	b.caCert = b.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, key)
	b.roots.AddCert(b.caCert)
	b.addr = "127.0.0.1:0"
	b.Start()
	b.addr = b.server.Addr()
	t.Cleanup(b.Stop)
	return b
}

// Start starts the server again after Stop, at the same address.
func (b *Bus) Start() {
	b.t.Helper()
	server, err := natsd.Start(natsd.Config{
		Listen: b.addr, Authorize: b.authorize,
		TLS: &tls.Config{
			Certificates: []tls.Certificate{b.Certificate("localhost")}, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: b.roots,
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.server = server
}

// Stop stops the server; connections stay, disconnected.
func (b *Bus) Stop() { b.server.Close() }

// Server gives the running server.
func (b *Bus) Server() *natsd.Server { return b.server }

// Addr gives the server's address, host:port.
func (b *Bus) Addr() string { return b.addr }

// Allow lets name connect and use the subjects given.
func (b *Bus) Allow(name string, pub, sub []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed[name] = grant{pub, sub}
}

// Ban takes back what Allow gave; Server().Recheck() makes it felt at once.
func (b *Bus) Ban(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.allowed, name)
}

func (b *Bus) authorize(chain []*x509.Certificate) (string, []string, []string, error) {
	name := chain[0].Subject.CommonName
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.allowed[name]
	if !ok {
		return "", nil, nil, xos.Errorf(xos.Permission, "%q may not use the bus", name)
	}
	return name, g.pub, g.sub, nil
}

// Connect connects as name, which may use all subjects.
func (b *Bus) Connect(name string) bus.Conn {
	b.t.Helper()
	b.Allow(name, []string{">"}, []string{">"})
	return b.ConnectAs(name, name)
}

// ConnectAs connects with a certificate for owner, claiming to be name, with
// what Allow gave before.
func (b *Bus) ConnectAs(owner, name string) bus.Conn {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := nats.Connect(ctx, nats.Config{Servers: []string{b.addr}, Name: name, TLS: b.ClientTLS(owner)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.t.Errorf("close the bus connection: %v", err)
		}
	})
	return c
}

// ClientTLS gives what a client with a certificate for name dials with.
func (b *Bus) ClientTLS(name string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{b.Certificate(name)}, RootCAs: b.roots,
		ServerName: "localhost", MinVersion: tls.VersionTLS13,
	}
}

// Certificate issues one for name.
func (b *Bus) Certificate(name string) tls.Certificate {
	b.t.Helper()
	return b.CertificateUntil(name, time.Now().Add(time.Hour))
}

// CertificateUntil issues one for name that ends then.
func (b *Bus) CertificateUntil(name string, end time.Time) tls.Certificate {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	cert := b.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, NotAfter: end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, b.caCert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// sign makes a certificate for key; a nil parent means self-signed.
func (b *Bus) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	b.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		b.t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, b.caKey)
	if err != nil {
		b.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.t.Fatal(err)
	}
	return cert
}
