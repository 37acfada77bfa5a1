package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Release lets go of the sessions' namespaces that no process is in. With them
// goes what would otherwise stay behind unseen: IPC objects, and files in
// /dev/shm. Who searches a machine for what is left of a uid calls it first,
// since he finds a namespace by its processes. A VO's next login gets new ones.
func (g *Guard) Release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	used, err := mountNamespaces()
	if err != nil {
		return err
	}
	dir := filepath.Join(g.run, "ns")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return xos.Errorf(xos.Internal, "listing the sessions' namespaces: %w", err)
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return &os.PathError{Op: "stat", Path: at, Err: err}
		}
		if used["mnt:["+strconv.FormatUint(st.Ino, 10)+"]"] {
			continue
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // EINVAL: it pins nothing
			return &os.PathError{Op: "unmount", Path: at, Err: err}
		}
		if err := os.Remove(at); err != nil {
			return err
		}
		vo, _, _ := strings.Cut(e.Name(), ".")
		if f := g.namespaces[xos.VOName(vo)]; f != nil {
			f.Close()
			delete(g.namespaces, xos.VOName(vo))
		}
	}
	return nil
}

// mountNamespaces gives the mount namespaces of all processes, as
// /proc/PID/ns/mnt names them.
func mountNamespaces() (map[string]bool, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, dir := range dirs {
		// One that may not be looked at keeps its namespace by itself.
		if name, err := os.Readlink(filepath.Join(dir, "ns/mnt")); err == nil {
			used[name] = true
		}
	}
	return used, nil
}
