// Package frame is the protocol of XtreemFS's hot paths: length-prefixed
// binary frames over a stream connection (TLS between machines), many requests
// in flight on each, and the encoding of every argument of the contracts
// xfs.MRC (metadata and replica catalogue) and xfs.OSD (object storage device).
//
// A frame is a header of HeaderSize bytes, big-endian, then a head, then bulk:
//
//	 0  size    uint32  bytes of head and bulk together
//	 4  head    uint32  bytes of head
//	 8  id      uint64  request number; the reply repeats it
//	16  code    uint8   request: Op; reply: 0 or 1 + xos.Kind
//	17  zero    [3]uint8
//	20  timeout uint32  request: milliseconds it is wanted for, 0 without limit
//
// The head holds the encoded arguments or results, bulk the file data, which
// thereby goes from and to the caller's buffer without a copy in between.
// A peer that sends what does not fit this is cut off.
package frame

import (
	"encoding/binary"
	"io"

	"github.com/xtreemos/xos"
)

// Bounds of one frame.
const (
	HeaderSize = 24
	MaxHead    = 512 << 10
	MaxBulk    = 1 << 20
)

// MaxEntries is how many directory entries one Readdir may answer with.
const MaxEntries = 1024

// maxInFlight is how many requests a client has under way on one connection;
// a server reads no further while twice as many wait.
const maxInFlight = 32

// Op is what a request asks for.
type Op uint8

// Operations of the protocol itself.
const (
	opCancel Op = iota // the request with this id is no longer wanted; no reply
	opPing             // answered at once
)

type header struct {
	size, head uint32
	id         uint64
	code       uint8
	timeout    uint32
}

func (h header) bulk() int { return int(h.size - h.head) }

func (h header) put(b *[HeaderSize]byte) {
	binary.BigEndian.PutUint32(b[0:], h.size)
	binary.BigEndian.PutUint32(b[4:], h.head)
	binary.BigEndian.PutUint64(b[8:], h.id)
	binary.BigEndian.PutUint32(b[16:], uint32(h.code)<<24)
	binary.BigEndian.PutUint32(b[20:], h.timeout)
}

func parseHeader(b *[HeaderSize]byte) (header, error) {
	h := header{
		size:    binary.BigEndian.Uint32(b[0:]),
		head:    binary.BigEndian.Uint32(b[4:]),
		id:      binary.BigEndian.Uint64(b[8:]),
		code:    b[16],
		timeout: binary.BigEndian.Uint32(b[20:]),
	}
	if b[17]|b[18]|b[19] != 0 || h.head > h.size || h.head > MaxHead || h.size-h.head > MaxBulk {
		return h, xos.Errorf(xos.Invalid, "malformed frame")
	}
	return h, nil
}

func readHeader(r io.Reader) (header, error) {
	var b [HeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, err
	}
	return parseHeader(&b)
}

// appendFrame puts header and head into one buffer, so that a frame without
// bulk is one write.
func appendFrame(dst []byte, h header, head []byte) []byte {
	var b [HeaderSize]byte
	h.put(&b)
	return append(append(dst, b[:]...), head...)
}
