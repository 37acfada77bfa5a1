package wire

import (
	"encoding/binary"
	"time"

	"github.com/xtreemos/xos"
)

// Constants of xos_wire.h; a test compares them.
const (
	magic      = 0x57534f58
	version    = 1
	headerSize = 16
	maxBody    = 65536
	maxMessage = 512
	maxSecret  = 256
	maxGroups  = 1024
	maxMembers = 8192

	firstID = 1879048192
	lastID  = 2147483646
)

// op is what a message is about.
type op uint16

const (
	opGetPwNam op = iota + 1
	opGetPwUID
	opGetGrNam
	opGetGrGID
	opInitGroups
	opPrincipals
	opPAMAuth
	opPAMAccount
	opPAMOpen
	opPAMClose
	opSubIDs
	opSubIDOwner
)

// patience is how long a client waits for the reply; that to an unknown op is
// at once.
func (o op) patience() time.Duration {
	switch o {
	case opPAMAccount, opPrincipals:
		return 10 * time.Second
	case opPAMAuth:
		return 27 * time.Second
	case opPAMOpen:
		return 20 * time.Second
	case opPAMClose:
		return 5 * time.Second
	}
	return time.Second
}

// status of a reply.
type status uint32

const (
	stOK status = iota
	stNotFound
	stDenied
	stInvalid
	stUnavail
	stNotSupported
	stExpired
	stInternal
)

// statusOf is the table from kinds of error to statuses.
func statusOf(err error) status {
	switch xos.KindOf(err) {
	case xos.NotFound:
		return stNotFound
	case xos.Permission:
		return stDenied
	case xos.Invalid, xos.TooLarge, xos.Exists:
		return stInvalid
	case xos.Unavailable, xos.Conflict:
		return stUnavail
	case xos.NotSupported:
		return stNotSupported
	case xos.Expired:
		return stExpired
	}
	return stInternal
}

// kind is the way back.
func (s status) kind() xos.Kind {
	switch s {
	case stNotFound:
		return xos.NotFound
	case stDenied:
		return xos.Permission
	case stInvalid:
		return xos.Invalid
	case stUnavail:
		return xos.Unavailable
	case stNotSupported:
		return xos.NotSupported
	case stExpired:
		return xos.Expired
	}
	return xos.Internal
}

// header is the first 16 bytes of a message.
type header struct {
	op     op
	length uint32
	status status
}

func (h header) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.op))
	b = binary.LittleEndian.AppendUint32(b, h.length)
	return binary.LittleEndian.AppendUint32(b, uint32(h.status))
}

func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize || binary.LittleEndian.Uint32(b) != magic {
		return header{}, xos.Errorf(xos.Invalid, "not a message of the modules' protocol")
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != version {
		return header{}, xos.Errorf(xos.Invalid, "protocol version %d, want %d", v, version)
	}
	h := header{
		op:     op(binary.LittleEndian.Uint16(b[6:])),
		length: binary.LittleEndian.Uint32(b[8:]),
		status: status(binary.LittleEndian.Uint32(b[12:])),
	}
	if h.length > maxBody {
		return header{}, xos.Errorf(xos.TooLarge, "message of %d bytes, at most %d are allowed", h.length, maxBody)
	}
	return h, nil
}

// message puts a header before fields.
func message(o op, s status, body []byte) ([]byte, error) {
	if len(body) > maxBody {
		return nil, xos.Errorf(xos.TooLarge, "message of %d bytes, at most %d are allowed", len(body), maxBody)
	}
	b := make([]byte, 0, headerSize+len(body))
	return append(header{o, uint32(len(body)), s}.append(b), body...), nil
}
