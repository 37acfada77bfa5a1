// Package krl writes and reads OpenSSH's key revocation lists (KRL), which
// sshd's RevokedKeys names. The format is OpenSSH's PROTOCOL.krl, version 1.
//
// Written are serial lists, key ids, whole keys and SHA-256 fingerprints; read
// is that and no more: what the encoder would not write is refused.
package krl

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/xtreemos/xos"
)

// List is what is revoked.
type List struct {
	// Version grows from list to list.
	Version   uint64
	Generated time.Time // to the second
	Comment   string
	// CAs are the authorities whose certificates are revoked.
	CAs []CA
	// Keys are revoked public keys in wire format, bare or in any certificate.
	Keys [][]byte
	// Fingerprints are SHA-256 sums of such keys.
	Fingerprints [][32]byte
}

// CA is an authority of users or hosts, with certificates of its that are
// revoked.
type CA struct {
	// Key is its public key in wire format; empty for any authority.
	Key []byte
	// Serials are single certificates; 0 is none.
	Serials []uint64
	// KeyIDs revoke every certificate with that key id.
	KeyIDs []string
}

const (
	magic         = "SSHKRL\n\x00"
	formatVersion = 1

	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA256       = 5

	certSerials = 0x20
	certKeyIDs  = 0x23
)

// MaxSize bounds a list: OpenSSH reads 128 MiB at most, and nobody needs that.
const MaxSize = 16 << 20

// maxString bounds a key id, a key and the comment.
const maxString = 16 << 10

// Encode writes a list. What it names twice is written once; the order is
// fixed, so that equal lists have equal bytes.
func (l *List) Encode() ([]byte, error) {
	sec := l.Generated.Unix()
	if l.Generated.IsZero() {
		sec = 0
	}
	if sec < 0 || len(l.Comment) > maxString {
		return nil, xos.Errorf(xos.Invalid, "the list's head cannot be written")
	}
	out := []byte(magic)
	out = binary.BigEndian.AppendUint32(out, formatVersion)
	out = binary.BigEndian.AppendUint64(out, l.Version)
	out = binary.BigEndian.AppendUint64(out, uint64(sec))
	out = binary.BigEndian.AppendUint64(out, 0) // flags: none are defined
	out = appendString(out, nil)                // reserved
	out = appendString(out, []byte(l.Comment))
	for _, ca := range l.CAs {
		body, err := ca.encode()
		if err != nil {
			return nil, err
		}
		if body != nil {
			out = appendString(append(out, sectionCertificates), body)
		}
	}
	keys := slices.Clone(l.Keys)
	slices.SortFunc(keys, bytes.Compare)
	var body []byte
	for _, k := range slices.CompactFunc(keys, bytes.Equal) {
		if len(k) == 0 || len(k) > maxString {
			return nil, xos.Errorf(xos.Invalid, "a key of %d bytes cannot be revoked", len(k))
		}
		body = appendString(body, k)
	}
	if body != nil {
		out = appendString(append(out, sectionKeys), body)
	}
	sums := slices.Clone(l.Fingerprints)
	slices.SortFunc(sums, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	body = nil
	for _, s := range slices.Compact(sums) {
		body = appendString(body, s[:])
	}
	if body != nil {
		out = appendString(append(out, sectionSHA256), body)
	}
	if len(out) > MaxSize {
		return nil, xos.Errorf(xos.TooLarge, "a revocation list of %d bytes: at most %d", len(out), MaxSize)
	}
	return out, nil
}

// encode gives the section's body; nil for an authority without revocations.
func (ca *CA) encode() ([]byte, error) {
	if len(ca.Key) > maxString {
		return nil, xos.Errorf(xos.Invalid, "an authority's key of %d bytes", len(ca.Key))
	}
	if len(ca.Serials) == 0 && len(ca.KeyIDs) == 0 {
		return nil, nil
	}
	out := appendString(nil, ca.Key)
	out = appendString(out, nil) // reserved
	var body []byte
	for _, s := range slices.Compact(slices.Sorted(slices.Values(ca.Serials))) {
		if s == 0 {
			return nil, xos.Errorf(xos.Invalid, "serial 0 names no certificate")
		}
		body = binary.BigEndian.AppendUint64(body, s)
	}
	if body != nil {
		out = appendString(append(out, certSerials), body)
	}
	body = nil
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ca.KeyIDs))) {
		if id == "" || len(id) > maxString || bytes.IndexByte([]byte(id), 0) >= 0 {
			return nil, xos.Errorf(xos.Invalid, "%.40q is no key id", id)
		}
		body = appendString(body, []byte(id))
	}
	if body != nil {
		out = appendString(append(out, certKeyIDs), body)
	}
	return out, nil
}

func appendString(dst, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}
