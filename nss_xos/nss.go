// Package nssxos is libnss_xos.so.2, the module of the C library's name
// service switch (NSS) that makes grid users and VO groups known to every
// program of a machine. It is C (build.sh builds it, and it needs nothing but
// libc); this package compiles the same files through cgo, for tests and
// fuzzers. No daemon needs it.
//
// What a lookup costs, and whom:
//
//   - A user name without '@', and an id outside the range of grid ids, are
//     not found at once. Nothing is opened: local logins and lookups are
//     untouched, whatever state xos-node is in.
//   - A group name that looks like a VO's ("physics" could be local too) costs
//     one open(2), which fails with ENOENT unless the machine serves that VO.
//   - A grid name or id is read from the VO's snapshot, if the kernel lets this
//     process open it, that is for root and the VO's members. For all others
//     it does not exist. It stays mapped, so that the next lookups cost one
//     system call, for the caller's ids (session/shim/xos_right.c).
//   - Only root's processes ask xos-node, and only for what no snapshot has:
//     so sshd gets its preview of a user who never was here. A dead xos-node
//     is noticed at once, one that hangs after a second (200 ms if it does not
//     even accept).
//
// There is no enumeration: getent passwd without a name shows no grid user.
// The switch's configuration is
//
//	passwd: files systemd xos
//	group:  files systemd xos
//
// with files first, so that no grid name can come before a local one.
package nssxos

// #cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror
// #include <stdlib.h>
// #include "xos_nss.h"
import "C"

import (
	"syscall"
	"unsafe"
)

// Status is an NSS status.
type Status int

// Statuses, as in nss.h of the C library.
const (
	TryAgain Status = -2
	Unavail  Status = -1
	NotFound Status = 0
	Success  Status = 1
)

// Place is where the session service and the snapshots are, and whose they
// must be.
type Place struct {
	Socket, Snapshots string
	Owner             uint32
}

// Passwd is what a lookup of a user gave.
type Passwd struct {
	Name, Passwd, Gecos, Dir, Shell string
	UID, GID                        uint32
}

// Group is what a lookup of a group gave.
type Group struct {
	Name, Passwd string
	GID          uint32
	Members      []string
}

// PasswdByName and its like look up with a buffer of size bytes for strings.
func (at Place) PasswdByName(name string, size int) (Passwd, Status, syscall.Errno) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	return at.passwd(size, func(p *C.struct_xos_place, pw *C.struct_passwd, r C.struct_room, e *C.int) C.enum_nss_status {
		return C.passwd_by_name(p, n, pw, r, e)
	})
}

func (at Place) PasswdByID(uid uint32, size int) (Passwd, Status, syscall.Errno) {
	return at.passwd(size, func(p *C.struct_xos_place, pw *C.struct_passwd, r C.struct_room, e *C.int) C.enum_nss_status {
		return C.passwd_by_id(p, C.uid_t(uid), pw, r, e)
	})
}

func (at Place) GroupByName(name string, size int) (Group, Status, syscall.Errno) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	return at.group(size, func(p *C.struct_xos_place, g *C.struct_group, r C.struct_room, e *C.int) C.enum_nss_status {
		return C.group_by_name(p, n, g, r, e)
	})
}

func (at Place) GroupByID(gid uint32, size int) (Group, Status, syscall.Errno) {
	return at.group(size, func(p *C.struct_xos_place, g *C.struct_group, r C.struct_room, e *C.int) C.enum_nss_status {
		return C.group_by_id(p, C.gid_t(gid), g, r, e)
	})
}

// GroupsOf gives what initgroups adds to a list that holds the primary group,
// for a caller who takes at most limit groups (0: any number).
func (at Place) GroupsOf(name string, primary uint32, limit int) ([]uint32, Status, syscall.Errno) {
	place, free := at.c()
	defer free()
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	// The list's words live in C memory, because C keeps pointers to them.
	type words struct {
		list       *C.gid_t
		used, size C.long
	}
	w := (*words)(C.calloc(1, C.size_t(unsafe.Sizeof(words{}))))
	defer C.free(unsafe.Pointer(w))
	w.list = (*C.gid_t)(C.calloc(1, C.sizeof_gid_t))
	defer func() { C.free(unsafe.Pointer(w.list)) }()
	*w.list = C.gid_t(primary)
	w.used, w.size = 1, 1
	var e C.int
	out := C.struct_gids{list: &w.list, used: &w.used, size: &w.size, limit: C.long(limit)}
	s := C.groups_of(place, n, C.gid_t(primary), out, &e)
	var gids []uint32
	for _, g := range unsafe.Slice(w.list, w.used) {
		gids = append(gids, uint32(g))
	}
	return gids, Status(s), syscall.Errno(e)
}

func (at Place) passwd(size int, f func(*C.struct_xos_place, *C.struct_passwd, C.struct_room, *C.int) C.enum_nss_status) (Passwd, Status, syscall.Errno) {
	place, free := at.c()
	defer free()
	pw := (*C.struct_passwd)(C.calloc(1, C.sizeof_struct_passwd))
	defer C.free(unsafe.Pointer(pw))
	buf := C.malloc(C.size_t(size))
	defer C.free(buf)
	var e C.int
	s := Status(f(place, pw, C.struct_room{(*C.char)(buf), C.size_t(size)}, &e))
	if s != Success {
		return Passwd{}, s, syscall.Errno(e)
	}
	return Passwd{
		Name: C.GoString(pw.pw_name), Passwd: C.GoString(pw.pw_passwd), Gecos: C.GoString(pw.pw_gecos),
		Dir: C.GoString(pw.pw_dir), Shell: C.GoString(pw.pw_shell),
		UID: uint32(pw.pw_uid), GID: uint32(pw.pw_gid),
	}, s, 0
}

func (at Place) group(size int, f func(*C.struct_xos_place, *C.struct_group, C.struct_room, *C.int) C.enum_nss_status) (Group, Status, syscall.Errno) {
	place, free := at.c()
	defer free()
	gr := (*C.struct_group)(C.calloc(1, C.sizeof_struct_group))
	defer C.free(unsafe.Pointer(gr))
	buf := C.malloc(C.size_t(size))
	defer C.free(buf)
	var e C.int
	s := Status(f(place, gr, C.struct_room{(*C.char)(buf), C.size_t(size)}, &e))
	if s != Success {
		return Group{}, s, syscall.Errno(e)
	}
	g := Group{Name: C.GoString(gr.gr_name), Passwd: C.GoString(gr.gr_passwd), GID: uint32(gr.gr_gid)}
	for p := gr.gr_mem; *p != nil; p = (**C.char)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(*p))) {
		g.Members = append(g.Members, C.GoString(*p))
	}
	return g, s, 0
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
