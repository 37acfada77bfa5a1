// Package shim is the C code that the modules in other programs' processes
// share (xos_*.c, xos_shim.h), and the protocol they speak (xos_wire.h). The
// modules compile these files into themselves; this package compiles the same
// files through cgo, so that Go's tests and fuzzers reach them. No daemon
// needs it.
package shim

// #cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror
// #include <stdlib.h>
// #include "xos_shim.h"
import "C"

import (
	"os"
	"unsafe"
)

// Place is where a server and snapshots are looked for, and the uid that the
// server must have.
type Place struct {
	Socket, Snapshots string
	Owner             uint32
}

// IsLogin applies the modules' grammar of login names.
func IsLogin(name string) (vo string, ok bool) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var v *C.char
	if C.xos_is_login(s, &v) == 0 {
		return "", false
	}
	return C.GoString(v), true
}

// IsGroup applies the modules' grammar of group names. The name is plain if a
// local group could be called so.
func IsGroup(name string) (vo string, plain, ok bool) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var (
		v *C.char
		n C.size_t
		p C.int
	)
	if C.xos_is_group(s, &v, &n, &p) == 0 {
		return "", false, false
	}
	return C.GoStringN(v, C.int(n)), p != 0, true
}

// Reply is what a server answered.
type Reply struct {
	Status uint32
	Fields []byte
	// File is the descriptor that came along, or nil.
	File *os.File
}

// Call sends a request and waits at most ms milliseconds for its reply.
func Call(at Place, op int, fields []byte, ms int) (Reply, error) {
	place, free := at.c()
	defer free()
	mem := C.malloc(C.size_t(C.XOS_HEADER + len(fields)))
	defer C.free(mem)
	copy(unsafe.Slice((*byte)(mem), C.XOS_HEADER+len(fields))[C.XOS_HEADER:], fields)
	q := (*C.struct_xos_out)(C.calloc(1, C.sizeof_struct_xos_out))
	defer C.free(unsafe.Pointer(q))
	C.xos_out_init(q, mem, C.size_t(C.XOS_HEADER+len(fields)))
	q.len += C.size_t(len(fields))

	r := (*C.struct_xos_reply)(C.calloc(1, C.sizeof_struct_xos_reply))
	defer C.free(unsafe.Pointer(r))
	defer C.xos_reply_free(r)
	if rc, err := C.xos_call(place, C.int(op), q, C.int(ms), r); rc != 0 {
		return Reply{}, err
	}
	reply := Reply{Status: uint32(r.status), Fields: C.GoBytes(unsafe.Pointer(r.body), C.int(r.in.left))}
	if r.fd >= 0 {
		reply.File = os.NewFile(uintptr(r.fd), "received")
		r.fd = -1
	}
	return reply, nil
}

// c gives the place to C; free must follow.
func (at Place) c() (place *C.struct_xos_place, free func()) {
	place = (*C.struct_xos_place)(C.calloc(1, C.sizeof_struct_xos_place))
	place.socket = C.CString(at.Socket)
	place.snapshots = C.CString(at.Snapshots)
	place.owner = C.uid_t(at.Owner)
	return place, func() {
		C.free(unsafe.Pointer(place.socket))
		C.free(unsafe.Pointer(place.snapshots))
		C.free(unsafe.Pointer(place))
	}
}
