package process

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Remote is the address at the other end of a process's connection: of sshd's, whom
// it serves. Where there are several it is one of them. Only root may ask.
func (id ID) Remote() (netip.Addr, error) {
	pidfd, err := id.Open()
	if err != nil {
		return netip.Addr{}, err
	}
	defer pidfd.Close()
	dir := filepath.Join("/proc", strconv.Itoa(id.PID), "fd")
	names, err := os.ReadDir(dir)
	if err != nil {
		return netip.Addr{}, xos.Errorf(xos.Internal, "the open files of process %d: %w", id.PID, err)
	}
	for _, name := range names {
		if what, err := os.Readlink(filepath.Join(dir, name.Name())); err != nil || !strings.HasPrefix(what, "socket:") {
			continue
		}
		n, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(int(pidfd.Fd()), n, 0)
		if err != nil {
			continue
		}
		peer, err := unix.Getpeername(fd)
		unix.Close(fd)
		if err != nil {
			continue
		}
		switch at := peer.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrFrom4(at.Addr), nil
		case *unix.SockaddrInet6:
			return netip.AddrFrom16(at.Addr).Unmap(), nil
		}
	}
	return netip.Addr{}, xos.Errorf(xos.NotFound, "process %d has no connection to another host", id.PID)
}
