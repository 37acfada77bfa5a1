package guard_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestRootOwnersOfListeners: however a listening TCP socket came to be, it is its
// VO's, and one of a grid uid without a VO nobody's of the grid.
func TestRootOwnersOfListeners(t *testing.T) {
	s := newStage(t)
	s.people(t)
	physics := map[uint32]bool{alice: true, bob: true, carol: false, mal: false, local: true}
	for how, of := range map[string]struct {
		uid     uint32
		allowed map[uint32]bool
	}{
		"bound":           {alice, physics},
		"unbound":         {alice, physics},
		"accepted before": {alice, physics},
		"set-user-ID":     {0, physics},
		"given away":      {0, map[uint32]bool{alice: false, bob: false, carol: false, local: true}},
		"of root":         {0, map[uint32]bool{alice: true, bob: true, carol: true, local: true}},
	} {
		at := s.listens(t, of.uid, "owner", how, "-")
		for who, allowed := range of.allowed {
			out, err := s.command(t, who, "connect", "tcp4", at).Output()
			if (err == nil) != allowed {
				t.Errorf("%s, uid %d: %s (want allowed %t)", how, who, strings.TrimSpace(string(out)), allowed)
			}
		}
	}
}

// ownListener listens as its user's program may, or as root's on behalf of alice,
// prints the address, and ends with stdin.
func ownListener(how string) int {
	runtime.LockOSThread()
	fd, err := listenerOf(how)
	var at unix.Sockaddr
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(net.JoinHostPort("127.0.0.1", strconv.Itoa(at.(*unix.SockaddrInet4).Port)))
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func listenerOf(how string) (int, error) {
	if how == "set-user-ID" { // as such a program of root's that alice executes
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(alice), ^uintptr(0), ^uintptr(0)); e != 0 {
			return 0, os.NewSyscallError("setresuid", e)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if how == "given away" {
		if err := unix.Fchown(fd, int(mal), -1); err != nil {
			return 0, os.NewSyscallError("fchown", err)
		}
	}
	if how == "bound" {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return 0, os.NewSyscallError("bind", err)
		}
	}
	if err := unix.Listen(fd, 8); err != nil {
		return 0, os.NewSyscallError("listen", err)
	}
	if how == "accepted before" {
		return reused(fd)
	}
	return fd, nil
}

// reused takes a connection, ends it, and listens with its socket.
func reused(listener int) (int, error) {
	at, err := unix.Getsockname(listener)
	if err != nil {
		return 0, err
	}
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(other, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: at.(*unix.SockaddrInet4).Port}); err != nil {
		return 0, os.NewSyscallError("connect", err)
	}
	fd, _, err := unix.Accept(listener)
	if err != nil {
		return 0, os.NewSyscallError("accept", err)
	}
	unix.Close(other)
	unix.Close(listener)
	none := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); e != 0 {
		return 0, os.NewSyscallError("disconnecting", e)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, 8))
}
