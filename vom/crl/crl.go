// Package crl serves the grid's certificate revocation list (CRL, RFC 5280) by
// plain HTTP requests, for tools that are not the grid's own: those verify by
// the bundle. What it serves is public and needs no certificate.
//
//	/ca/crl.der     the list, signed by the issuer
//	/ca/crl.pem
//	/ca/issuer.pem  the issuer's certificate, signed by the root
package crl

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/xvoms"
)

const (
	// fresh is for how long a list is served again: signing costs, and anybody
	// may ask. A change of the bundle makes a new one at once.
	fresh = time.Minute
	// validity is from a list to when its reader must have the next.
	validity = 24 * time.Hour
)

// Records says what is revoked: vom/xvoms.
type Records interface {
	Bundle() vom.Bundle
	RevokedCertificates(context.Context) ([]xvoms.RevokedCertificate, error)
}

// Authority signs: vom/authority.
type Authority interface {
	Issuer() []byte
	CRL(revoked []x509.RevocationListEntry, number *big.Int, now, next time.Time) ([]byte, error)
}

// List makes and serves the list. It is safe for concurrent use.
type List struct {
	records   Records
	authority Authority
	now       func() time.Time
	log       *slog.Logger

	mu    sync.Mutex
	der   []byte
	epoch uint64
	made  time.Time
}

// New makes the list's service.
func New(r Records, a Authority, now func() time.Time, log *slog.Logger) *List {
	return &List{records: r, authority: a, now: now, log: log}
}

// DER gives a list that tells all that this core knows revoked.
func (l *List) DER(ctx context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, now := l.records.Bundle().Epoch, l.now().UTC().Truncate(time.Second)
	if l.der != nil && l.epoch == epoch && now.Sub(l.made) < fresh && !now.Before(l.made) {
		return l.der, nil
	}
	revoked, err := l.records.RevokedCertificates(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]x509.RevocationListEntry, 0, len(revoked))
	for _, r := range revoked {
		serial, ok := new(big.Int).SetString(r.Serial, 10)
		if !ok {
			return nil, xos.Errorf(xos.Internal, "%.80q is no serial", r.Serial)
		}
		at := r.At.UTC()
		if at.After(now) {
			at = now // a removal may be dated by an issue of a core ahead of this
		}
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: at, ReasonCode: r.Reason})
	}
	// By epoch first, so that it grows though a clock goes back.
	number := new(big.Int).Lsh(new(big.Int).SetUint64(epoch), 40)
	number.Add(number, big.NewInt(now.Unix()))
	der, err := l.authority.CRL(entries, number, now, now.Add(validity))
	if err != nil {
		return nil, err
	}
	l.der, l.epoch, l.made = der, epoch, now
	return der, nil
}

// Handle adds the list's paths.
func (l *List) Handle(mux *http.ServeMux) {
	serve := func(path, kind string, body func(context.Context) ([]byte, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			data, err := body(r.Context())
			if err != nil {
				l.log.Error("the revocation list cannot be made", "error", err)
				http.Error(w, "the revocation list cannot be made", http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", kind)
			w.Write(data)
		})
	}
	inPEM := func(kind string, body func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			der, err := body(ctx)
			return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), err
		}
	}
	issuer := func(context.Context) ([]byte, error) { return l.authority.Issuer(), nil }
	serve("/ca/crl.der", "application/pkix-crl", l.DER)
	serve("/ca/crl.pem", "application/x-pem-file", inPEM("X509 CRL", l.DER))
	serve("/ca/issuer.pem", "application/x-pem-file", inPEM("CERTIFICATE", issuer))
}
