package wire

import (
	"encoding/binary"
	"math/bits"
	"strconv"

	"github.com/xtreemos/xos"
)

// The format of a snapshot's files; see xos_wire.h.
const (
	snapMagic       = "XOSSNAP\n"
	snapVersion     = 1
	snapBased       = 2 // a head with a base
	snapHeader      = 80
	snapBasedHeader = 88
	snapGen         = 16 // offset of the generation
	snapMax         = 1 << 30
	snapMix         = 0x9e3779b1
	snapRun         = 4096
	snapUser        = 1
	snapGroup       = 2
	snapGone        = 3
)

// layout is one file of a snapshot that is being written.
type layout struct {
	e          encoder
	slots      uint32
	names, ids uint32 // where the indexes are
	vo         xos.VOName
	based      uint64
	tail       int // bytes of the file after e.b
	users      uint32
	groups     uint32
	err        error
}

// newLayout begins a file with at most so many records, about so many bytes of
// them. based is the generation of the base, or 0.
func newLayout(vo xos.VOName, based uint64, records, size int) *layout {
	l := &layout{vo: vo, based: based, names: snapHeader}
	if based != 0 {
		l.names = snapBasedHeader
	}
	l.slots = 2 << bits.Len(uint(records)) // at most half full: runs stay short
	l.ids = l.names + l.slots*8
	start := int(l.ids + l.slots*8)
	l.e.b = make([]byte, start, start+size)
	return l
}

func (l *layout) user(u *SnapshotUser) {
	at := l.userRecord(u)
	l.users++
	l.name(u.Name, at)
	l.id(u.UID, at)
}

func (l *layout) userRecord(u *SnapshotUser) (at uint32) {
	at = l.record(snapUser)
	l.e.passwd(u.Passwd)
	l.e.ids(u.Groups)
	l.end(at)
	return at
}

// sizeOf is how long a user's record is.
func sizeOf(u *SnapshotUser) int {
	return 8 + 4 + len(u.Name) + 4 + 4 + 4 + len(u.Gecos) + 4 + len(u.Dir) + 4 + len(u.Shell) + 4 + 4*len(u.Groups)
}

func (l *layout) group(g Group) {
	at := l.record(snapGroup)
	l.e.group(g)
	l.end(at)
	l.groups++
	l.name(g.Name, at)
	l.id(g.GID, at)
}

// gone hides what the base has under the name, under the id, or both.
func (l *layout) gone(name string, id uint32, byName, byID bool) {
	at := l.record(snapGone)
	l.e.str(name)
	l.e.id(id)
	l.end(at)
	if byName {
		l.name(name, at)
	}
	if byID {
		l.id(id, at)
	}
}

// record begins a record, of which end fills in the length.
func (l *layout) record(kind uint32) (at uint32) {
	at = uint32(len(l.e.b))
	l.e.u32(kind)
	l.e.u32(0)
	return at
}

func (l *layout) end(at uint32) {
	n := len(l.e.b) - int(at) - 8
	if n > maxBody && l.err == nil {
		l.err = xos.Errorf(xos.TooLarge, "snapshot of %s: a record of %d bytes, at most %d", l.vo, n, maxBody)
	}
	if len(l.e.b) > snapMax && l.err == nil {
		l.err = l.tooLarge()
	}
	binary.LittleEndian.PutUint32(l.e.b[at+4:], uint32(n))
}

func (l *layout) tooLarge() error {
	return xos.Errorf(xos.TooLarge, "snapshot of %s: more than %d bytes", l.vo, snapMax)
}

// name enters a record into the index by name; no two may have one.
func (l *layout) name(name string, at uint32) {
	key := nameKey(name)
	if !l.put(l.names, key, at, func(other uint32) bool { return l.isNamed(other, name) }) {
		l.twice(name)
	}
}

// id enters a record into the index by id; no two may have one.
func (l *layout) id(id, at uint32) {
	if !l.put(l.ids, id, at, func(uint32) bool { return true }) {
		l.twice(strconv.FormatUint(uint64(id), 10))
	}
}

// isNamed says whether the record is this name's.
func (l *layout) isNamed(at uint32, name string) bool {
	b := l.e.b[at+8:]
	n := binary.LittleEndian.Uint32(b)
	return string(b[4:4+n]) == name
}

func (l *layout) twice(what string) {
	if l.err == nil {
		l.err = l.conflict(what)
	}
}

func (l *layout) conflict(what string) error {
	return xos.Errorf(xos.Conflict, "snapshot of %s: %s is there twice", l.vo, what)
}

// put enters a record into an index, unless the same is there already: of those
// that have the key, one is asked for at a time.
func (l *layout) put(index, key, at uint32, same func(other uint32) bool) bool {
	for slot := slotOf(key); ; slot++ {
		e := l.e.b[index+(slot&(l.slots-1))*8:]
		other := binary.LittleEndian.Uint32(e[4:])
		switch {
		case other == 0:
			binary.LittleEndian.PutUint32(e, key)
			binary.LittleEndian.PutUint32(e[4:], at)
			return true
		case binary.LittleEndian.Uint32(e) == key && same(other):
			return false
		}
	}
}

// finish gives the file.
func (l *layout) finish(generation uint64) ([]byte, error) {
	if l.err == nil {
		l.err = l.e.err
	}
	if l.err != nil {
		return nil, l.err
	}
	le, b := binary.LittleEndian, l.e.b
	copy(b, snapMagic)
	le.PutUint32(b[8:], snapVersion)
	if l.based != 0 {
		le.PutUint32(b[8:], snapBased)
		le.PutUint64(b[snapHeader:], l.based)
	}
	le.PutUint32(b[12:], uint32(len(b)+l.tail))
	le.PutUint64(b[snapGen:], generation)
	le.PutUint32(b[24:], l.users)
	le.PutUint32(b[28:], l.groups)
	le.PutUint32(b[32:], l.slots)
	le.PutUint32(b[36:], l.names)
	le.PutUint32(b[40:], l.ids)
	le.PutUint32(b[44:], uint32(len(l.vo)))
	copy(b[48:snapHeader], l.vo)
	return b, nil
}

func slotOf(key uint32) uint32 {
	h := key * snapMix
	return h ^ h>>16
}

// nameKey is FNV-1a (32 bit).
func nameKey(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}
