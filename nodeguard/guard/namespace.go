package guard

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// SessionNamespace implements nodeguard.Guard. The logins of a VO share one
// mount namespace: a copy of this process's, which must be the machine's own,
// with a /proc that shows each uid only the processes it could trace, which
// are its own. Mounts made on the machine later appear in it; mounts made in
// it stay in it.
func (g *Guard) SessionNamespace(_ context.Context, vo xos.VOName) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.namespaces[vo]
	if f == nil {
		var err error
		if f, err = newNamespace(); err != nil {
			return -1, err
		}
		g.namespaces[vo] = f
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, xos.Errorf(xos.Internal, "duplicating a namespace descriptor: %w", err)
	}
	return fd, nil
}

// newNamespace makes the namespace on a thread that ends with it: a thread
// that left the process's own namespace may run no other goroutine.
func newNamespace() (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked
		f, err := enterNewNamespace()
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, xos.Errorf(xos.NotSupported, "making a session's mount namespace: %w", r.err)
	}
	return r.f, nil
}

func enterNewNamespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=ptraceable"); err != nil {
		return nil, os.NewSyscallError("mount /proc with hidepid=ptraceable", err)
	}
	return os.Open(filepath.Join("/proc/self/task", strconv.Itoa(unix.Gettid()), "ns/mnt"))
}

// probeNamespace makes one and forgets it.
func (g *Guard) probeNamespace() error {
	f, err := newNamespace()
	if err != nil {
		return err
	}
	return f.Close()
}
