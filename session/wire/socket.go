package wire

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// peerOf asks the kernel who has connected. A process that has ended since
// has no PIDFD.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{PIDFD: -1}, xos.Errorf(xos.Internal, "peer of a connection: %w", err)
	}
	p := Peer{PIDFD: -1}
	var cerr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr != nil {
			return
		}
		p.PID, p.UID, p.GID = int(cred.Pid), cred.Uid, cred.Gid
		// Exact since Linux 6.5; before, the pid could have come to mean
		// another process since the connection was made.
		pidfd, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(err, unix.ENOPROTOOPT) {
			pidfd, err = unix.PidfdOpen(p.PID, 0)
		}
		if err == nil {
			unix.CloseOnExec(pidfd)
			p.PIDFD = pidfd
		}
	})
	if err = errors.Join(err, cerr); err != nil {
		return p, xos.Errorf(xos.Internal, "peer of a connection: %w", err)
	}
	return p, nil
}

func closePeer(p Peer) {
	if p.PIDFD >= 0 {
		syscall.Close(p.PIDFD)
	}
}

// writeAll writes b; f's descriptor goes with its first byte.
func writeAll(c *net.UnixConn, b []byte, f *os.File) error {
	if f != nil {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var n int
		var werr error
		if err := raw.Control(func(fd uintptr) {
			n, _, werr = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
		}); err != nil {
			return err
		}
		if werr != nil {
			return werr
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
	_, err := c.Write(b)
	return err
}
