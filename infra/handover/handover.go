// Package handover keeps a service's unix sockets open over its restarts: the
// service manager holds them meanwhile (systemd's file descriptor store), so that
// who connects waits for the successor instead of being refused. A service
// that is stopped, and not started again, has its sockets closed.
//
// The unit needs FileDescriptorStoreMax=. Without a service manager the sockets
// are ordinary ones.
package handover

import (
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Sockets are what a predecessor left. A program takes them once.
type Sockets struct{ held map[string]*os.File }

// Take takes what the service manager passed to this process.
func Take() *Sockets {
	s := &Sockets{held: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
		if _, twice := s.held[f.Name()]; twice {
			f.Close()
			continue
		}
		s.held[f.Name()] = f
	}
	return s
}

// Close closes what was not asked for. What the service manager has stays there.
func (s *Sockets) Close() {
	for name, f := range s.held {
		f.Close()
		delete(s.held, name)
	}
}

// Listen gives the listening socket of that name at path: the predecessor's,
// with all who wait at it, or a new one, which the service manager is given.
// The socket appears at path complete, with its mode; xos.Exists if another
// process serves path. Closing it does not remove it.
func (s *Sockets) Listen(name, path string, mode os.FileMode) (*net.UnixListener, error) {
	if f := s.held[name]; f != nil {
		delete(s.held, name)
		l, err := inherit(f, path)
		f.Close()
		if err == nil {
			return l, nil
		}
		if err := notify("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
			return nil, err
		}
	}
	l, err := fresh(path, mode)
	if err != nil {
		return nil, err
	}
	raw, err := l.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = notify("FDSTORE=1\nFDNAME="+name, unix.UnixRights(int(fd))) })
		if err == nil {
			err = inner
		}
	}
	if err != nil {
		l.Close()
		return nil, xos.Errorf(xos.Internal, "giving %s to the service manager: %w", path, err)
	}
	return l, nil
}

// inherit makes sure that a socket is the one that path leads to: another
// version of the program may have put its own there.
func inherit(f *os.File, path string) (*net.UnixListener, error) {
	made, err := unix.GetsockoptUcred(int(f.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var there *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		there, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	// Both are the process that once called listen(2).
	if inner != nil || *there != *made {
		return nil, xos.Errorf(xos.Exists, "another socket is at %s", path)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, xos.Errorf(xos.Invalid, "%s is no unix socket", f.Name())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

func fresh(path string, mode os.FileMode) (*net.UnixListener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, xos.Errorf(xos.Exists, "another process serves %s", path)
	}
	hidden := path + ".new"
	if err := os.Remove(hidden); err != nil && !os.IsNotExist(err) {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(hidden, mode); err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		l.Close()
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	return l, nil
}

// notify tells the service manager, if there is one.
func notify(state string, rights []byte) error {
	at := os.Getenv("NOTIFY_SOCKET")
	if at == "" {
		return nil
	}
	if strings.HasPrefix(at, "@") {
		at = "\x00" + at[1:]
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		err := unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: at}, unix.MSG_NOSIGNAL)
		if err != syscall.EINTR {
			return err
		}
	}
}
