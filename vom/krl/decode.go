package krl

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"github.com/xtreemos/xos"
)

// Decode reads a list as Encode writes it; anything else is xos.Invalid.
func Decode(data []byte) (*List, error) {
	bad := xos.Errorf(xos.Invalid, "this is no revocation list of ours")
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(data) > MaxSize || len(rest) < 4+3*8 {
		return nil, bad
	}
	version, flags := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint64(rest[20:])
	l := &List{Version: binary.BigEndian.Uint64(rest[4:])}
	sec := binary.BigEndian.Uint64(rest[12:])
	if version != formatVersion || flags != 0 || sec > math.MaxInt32*1000 {
		return nil, bad
	}
	if sec > 0 {
		l.Generated = time.Unix(int64(sec), 0).UTC()
	}
	r := reader{rest[28:]}
	if reserved, ok := r.string(); !ok || len(reserved) > 0 {
		return nil, bad
	}
	comment, ok := r.string()
	if !ok {
		return nil, bad
	}
	l.Comment = string(comment)
	for len(r.rest) > 0 {
		kind := r.byte()
		body, ok := r.string()
		if !ok || len(body) == 0 || !l.section(kind, reader{body}) {
			return nil, bad
		}
	}
	// Order, doubles and bounds: only what is written alike is believed.
	again, err := l.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return nil, bad
	}
	return l, nil
}

func (l *List) section(kind byte, r reader) bool {
	switch kind {
	case sectionCertificates:
		ca, ok := r.ca()
		l.CAs = append(l.CAs, ca)
		return ok
	case sectionKeys:
		for len(r.rest) > 0 {
			key, ok := r.string()
			if !ok {
				return false
			}
			l.Keys = append(l.Keys, key)
		}
		return true
	case sectionSHA256:
		for len(r.rest) > 0 {
			sum, ok := r.string()
			if !ok || len(sum) != 32 {
				return false
			}
			l.Fingerprints = append(l.Fingerprints, [32]byte(sum))
		}
		return true
	}
	return false
}

func (r *reader) ca() (ca CA, ok bool) {
	key, ok1 := r.string()
	reserved, ok2 := r.string()
	if !ok1 || !ok2 || len(reserved) > 0 {
		return ca, false
	}
	ca.Key = key
	for len(r.rest) > 0 {
		kind := r.byte()
		body, ok := r.string()
		if !ok {
			return ca, false
		}
		switch kind {
		case certSerials:
			if len(body)%8 != 0 {
				return ca, false
			}
			for ; len(body) > 0; body = body[8:] {
				ca.Serials = append(ca.Serials, binary.BigEndian.Uint64(body))
			}
		case certKeyIDs:
			for ids := (reader{body}); len(ids.rest) > 0; {
				id, ok := ids.string()
				if !ok {
					return ca, false
				}
				ca.KeyIDs = append(ca.KeyIDs, string(id))
			}
		default:
			return ca, false
		}
	}
	return ca, true
}

// reader takes an input apart; what it gives is part of it.
type reader struct{ rest []byte }

func (r *reader) byte() byte {
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) string() ([]byte, bool) {
	if len(r.rest) < 4 {
		return nil, false
	}
	n := binary.BigEndian.Uint32(r.rest)
	if uint64(n) > uint64(len(r.rest)-4) {
		return nil, false
	}
	s := r.rest[4 : 4+n : 4+n]
	r.rest = r.rest[4+n:]
	return s, true
}
