package wire

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/xtreemos/xos"
)

// encoder appends fields; the first that cannot be written is remembered.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }

func (e *encoder) str(s string) {
	if strings.IndexByte(s, 0) >= 0 || len(s) > maxBody {
		e.err = xos.Errorf(xos.Invalid, "%.40q cannot be sent", s)
		return
	}
	e.b = append(binary.LittleEndian.AppendUint32(e.b, uint32(len(s))), s...)
}

func (e *encoder) strs(list []string) {
	e.u32(uint32(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

func (e *encoder) ids(list []uint32) {
	if len(list) > maxGroups {
		e.err = xos.Errorf(xos.TooLarge, "%d groups, at most %d are allowed", len(list), maxGroups)
		return
	}
	e.u32(uint32(len(list)))
	for _, id := range list {
		e.id(id)
	}
}

// id writes a uid or gid, which must be the grid's: no defect elsewhere may
// ever make a grid user root.
func (e *encoder) id(id uint32) {
	if id < firstID || id > lastID {
		e.err = xos.Errorf(xos.Internal, "id %d is outside the range of grid ids", id)
	}
	e.u32(id)
}

func (e *encoder) passwd(p Passwd) {
	e.str(p.Name)
	e.id(p.UID)
	e.id(p.GID)
	e.str(p.Gecos)
	e.str(p.Dir)
	e.str(p.Shell)
}

func (e *encoder) group(g Group) {
	e.str(g.Name)
	e.id(g.GID)
	if len(g.Members) > maxMembers {
		e.err = xos.Errorf(xos.TooLarge, "group %s has %d members, at most %d can be listed", g.Name, len(g.Members), maxMembers)
		return
	}
	e.strs(g.Members)
}

func (e *encoder) pam(r PAMRequest) {
	e.str(r.Account.String())
	e.str(r.Service)
	e.str(r.RemoteHost)
	e.str(r.TTY)
}

// decoder takes fields off b; after the first malformed one it gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint32) []byte {
	if d.bad || uint64(n) > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	f := d.b[:n]
	d.b = d.b[n:]
	return f
}

func (d *decoder) u32() uint32 {
	if f := d.take(4); f != nil {
		return binary.LittleEndian.Uint32(f)
	}
	return 0
}

func (d *decoder) str() string {
	s := string(d.take(d.u32()))
	if strings.IndexByte(s, 0) >= 0 {
		d.bad = true
	}
	return s
}

// count reads the length of a list whose items have at least 4 bytes each.
func (d *decoder) count(most int) int {
	n := d.u32()
	if uint64(n) > uint64(most) || uint64(n)*4 > uint64(len(d.b)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) strs(most int) []string {
	var list []string
	for range d.count(most) {
		list = append(list, d.str())
	}
	return list
}

func (d *decoder) ids() []uint32 {
	var list []uint32
	for range d.count(maxGroups) {
		list = append(list, d.id())
	}
	return list
}

func (d *decoder) id() uint32 {
	id := d.u32()
	if id < firstID || id > lastID {
		d.bad = true
	}
	return id
}

func (d *decoder) passwd() Passwd {
	return Passwd{Name: d.str(), UID: d.id(), GID: d.id(), Gecos: d.str(), Dir: d.str(), Shell: d.str()}
}

func (d *decoder) group() Group {
	return Group{Name: d.str(), GID: d.id(), Members: d.strs(maxMembers)}
}

// account reads a login name; ok is false where it follows no grammar.
func (d *decoder) account() (a xos.Account, ok bool) {
	a, err := xos.ParseAccount(d.str())
	return a, err == nil
}

func (d *decoder) pam() (PAMRequest, bool) {
	a, ok := d.account()
	return PAMRequest{Account: a, Service: d.str(), RemoteHost: d.str(), TTY: d.str()}, ok
}

var errMalformed = xos.Errorf(xos.Invalid, "malformed fields")

// secret reads a password where it lies, without a copy of it.
func (d *decoder) secret() Secret {
	f := d.take(d.u32())
	if len(f) > maxSecret || bytes.IndexByte(f, 0) >= 0 {
		d.bad = true
		return nil
	}
	return f
}

// end says whether all was well and nothing is left over.
func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return errMalformed
	}
	return nil
}
