package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// layout names what a session's namespace consists of. One that was pinned by a
// version with another layout is not taken over.
const layout = "4"

// SessionNamespace implements nodeguard.Guard. The logins of a VO share one
// mount namespace: a copy of this process's, which must be the machine's own,
// with what furnish changes. Mounts made on the machine later appear in it;
// mounts made in it stay in it. It is pinned, so that the logins before and
// after a restart of this process share their /tmp.
func (g *Guard) SessionNamespace(_ context.Context, vo xos.VOName) (int, error) {
	if !xos.ValidName(string(vo)) {
		return -1, xos.Errorf(xos.Invalid, "%.40q is no VO's name", vo)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.namespaces[vo]
	if f == nil {
		var err error
		if f = g.pinned(vo); f == nil {
			if f, err = newNamespace(func() error { return g.furnish(vo) }); err != nil {
				return -1, err
			}
			if err := g.pin(vo, f); err != nil {
				g.log.Warn("a session's namespace ends with xos-node and the VO's last process", "vo", vo, "error", err)
			}
		}
		g.namespaces[vo] = f
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, xos.Errorf(xos.Internal, "duplicating a namespace descriptor: %w", err)
	}
	return fd, nil
}

// newNamespace makes mount and IPC namespaces on a thread that ends with it: a
// thread that left the process's own namespaces may run no other goroutine.
func newNamespace(furnish func() error) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked
		f, err := enterNewNamespace(furnish)
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, xos.Errorf(xos.NotSupported, "making a session's mount namespace: %w", r.err)
	}
	return r.f, nil
}

func enterNewNamespace(furnish func() error) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=ptraceable"); err != nil {
		return nil, os.NewSyscallError("mount /proc with hidepid=ptraceable", err)
	}
	if err := furnish(); err != nil {
		return nil, err
	}
	return os.Open(ownNamespace("mnt"))
}

// ownNamespace is the file of one of the calling thread's namespaces.
func ownNamespace(kind string) string {
	return filepath.Join("/proc/self/task", strconv.Itoa(unix.Gettid()), "ns", kind)
}

// probeNamespace makes one and forgets it.
func (g *Guard) probeNamespace() error {
	f, err := newNamespace(func() error { return nil })
	if err != nil {
		return err
	}
	return f.Close()
}

func (g *Guard) pinPath(vo xos.VOName) string {
	return filepath.Join(g.run, "ns", string(vo)+"."+layout)
}

// pinned takes over the namespace of a predecessor; nil if there is none.
func (g *Guard) pinned(vo xos.VOName) *os.File {
	f, err := os.Open(g.pinPath(vo))
	if err != nil {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		f.Close()
		return nil
	}
	return f
}

// pin keeps a namespace by a mount on a file. The directory must be a mount
// that is nobody's peer: else the namespace would hold itself.
func (g *Guard) pin(vo xos.VOName, f *os.File) error {
	dir := filepath.Dir(g.pinPath(vo))
	if err := ownMount(dir, 0o700, unix.MS_PRIVATE); err != nil {
		return err
	}
	at, err := os.OpenFile(g.pinPath(vo), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	at.Close()
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), g.pinPath(vo), "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "pin on", Path: g.pinPath(vo), Err: err}
	}
	return nil
}

// ownMount makes a directory the root of a mount, if it is none, so that it has
// a propagation of its own.
func ownMount(dir string, mode fs.FileMode, propagation uintptr) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if is, err := isMount(dir); is || err != nil {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: dir, Err: err}
	}
	// First private: bound to itself it would be its own parent's peer.
	err := unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	if err == nil && propagation != unix.MS_PRIVATE {
		err = unix.Mount("", dir, "", propagation, "")
	}
	if err != nil {
		return errors.Join(&os.PathError{Op: "set the propagation of", Path: dir, Err: err}, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// isMount reports whether a directory is the root of a mount.
func isMount(dir string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
