package agent

import (
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Listen makes a socket for one user, in a directory that only a VO's members
// get through, so that others cannot even see who is there. It appears
// complete, in place of one that a predecessor left.
func Listen(path string, uid, vo uint32) (*net.UnixListener, error) {
	fail := func(err error) (*net.UnixListener, error) {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return fail(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	err = unix.Fchown(fd, 0, int(vo))
	if err == nil {
		err = unix.Fchmod(fd, 0o710)
	}
	unix.Close(fd)
	if err != nil {
		return fail(err)
	}
	fresh := filepath.Join(dir, ".new-"+filepath.Base(path))
	if err := os.Remove(fresh); err != nil && !os.IsNotExist(err) {
		return fail(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	// Whoever connects before is asked who he is, as everybody.
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Lchown(fresh, int(uid), int(uid))
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return fail(err)
	}
	return l, nil
}
