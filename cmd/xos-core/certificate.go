package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/xvoms"
)

// ownCertificate is the core's own, which it certifies by itself at each
// start; its key is never on disk.
type ownCertificate struct {
	name      xos.NodeID
	records   *xvoms.Records
	authority *authority.Authority
	current   atomic.Pointer[tls.Certificate]
}

// get gives the certificate to show.
func (o *ownCertificate) get() (*tls.Certificate, error) { return o.current.Load(), nil }

// renew certifies a new key.
func (o *ownCertificate) renew(ctx context.Context) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(o.name)}}, key)
	if err != nil {
		return err
	}
	csr, _, err := authority.ParseRequest(der)
	if err != nil {
		return err
	}
	grant, err := o.records.CertifyCore(ctx, vom.MachineClaim{
		Node: o.name, Service: vom.ServiceCore,
		Key: sha256.Sum256(csr.RawSubjectPublicKeyInfo), Fingerprint: credential.Fingerprint(csr.PublicKey), Addresses: ownAddresses(),
	})
	if err != nil {
		return err
	}
	chain, err := o.authority.Machine(ctx, csr, grant)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	o.current.Store(&tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf})
	return nil
}

// run renews the certificate in good time until ctx ends.
func (o *ownCertificate) run(ctx context.Context, log *slog.Logger) error {
	for {
		leaf := o.current.Load().Leaf
		wait := max(time.Until(leaf.NotAfter)/2, time.Minute)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := o.renew(ctx); err != nil {
			log.Error("cannot renew the core's certificate", "error", err)
		}
	}
}

// ownAddresses lists this machine's addresses that others may reach.
func ownAddresses() []netip.Addr {
	var list []netip.Addr
	found, _ := net.InterfaceAddrs()
	for _, f := range found {
		n, ok := f.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if a, ok := netip.AddrFromSlice(n.IP); ok && len(list) < 16 {
			list = append(list, a.Unmap())
		}
	}
	return list
}
