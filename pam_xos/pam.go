// Package pamxos is pam_xos.so, the module of pluggable authentication modules
// (PAM) for grid users. It is C (build.sh builds it, and it needs nothing but
// libc and libpam); this package compiles the same files through cgo, so that
// they are vetted and fuzzed with the rest. No daemon needs it.
//
// For every name that is no grid user's each function returns PAM_IGNORE,
// before it opens anything: local logins are untouched, whatever state
// xos-node is in. A grid user's name has the form user@vo and, if it has a uid,
// one in the range of grid ids.
//
//   - auth: asks for the grid password, which xos-node has the core check.
//     PAM_AUTH_ERR where that is wrong, PAM_AUTHINFO_UNAVAIL where xos-node or
//     the core does not answer or too many were wrong. A certificate is checked
//     by sshd and xos-principals before PAM, and without this.
//   - account: xos-node decides by name; without xos-node
//     PAM_AUTHINFO_UNAVAIL. Whatever can be refused must be refused here,
//     because sshd goes on with a connection whose session was not opened;
//     what is found wrong only in the session, where the certificate can be
//     seen for the first time, makes xos-node kill the login process, besides
//     answering with an error: when the module has shown that and hung up.
//   - session: gives SSH_AUTH_INFO_0 to xos-node, which knows the process that
//     has shown a password, enters the mount namespace
//     that came back, sets the session's environment; on close tells xos-node.
//   - setcred does nothing, chauthtok refuses and says what to do.
//
// The stack of a service is
//
//	auth     [success=done ignore=ignore default=die]  pam_xos.so
//	account  required                                  pam_xos.so
//	session  required                                  pam_xos.so
//	password [success=done ignore=ignore default=die]  pam_xos.so
//
// each before pam_unix's line: to which a grid user with "*" for a password is
// no stranger, and whose account function lets her pass.
package pamxos

// #cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror
// #cgo LDFLAGS: -lpam
// #include <stdlib.h>
// #include "pam_xos.h"
import "C"

import "unsafe"

// ValidOpenReply reports whether the module takes these fields, which came
// with or without a descriptor, for the reply to an opened session.
func ValidOpenReply(fields []byte, descriptor bool) bool {
	r := (*C.struct_xos_reply)(C.calloc(1, C.sizeof_struct_xos_reply))
	defer C.free(unsafe.Pointer(r))
	r.fd = -1
	if descriptor {
		r.fd = 0
	}
	mem := C.CBytes(fields)
	defer C.free(mem)
	r.in.p = (*C.uchar)(mem)
	r.in.left = C.size_t(len(fields))
	o := (*C.struct_opened)(C.calloc(1, C.sizeof_struct_opened))
	defer C.free(unsafe.Pointer(o))
	ok := C.read_open_reply(r, o) != 0
	C.free(unsafe.Pointer(o.id))
	return ok
}
