package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// records are files of logins that everybody may read. In a session they are
// the VO's own, kept below Config.Run: what sshd writes there is added to the
// machine's, but for lastlog, whose record of a grid uid lies 500 GB from its
// beginning.
var records = []string{"/run/utmp", "/var/log/wtmp", "/var/log/lastlog"}

// databases are what has come after records: SQLite databases of logins that
// everybody may read, and the socket of a daemon that reads them for everybody.
// Their directories are for root only in a session, who may be the first to
// write there. A database of the VO's own cannot be put in the place of one: its
// journal is found by its name, and would be the machine's.
var databases = []struct{ dir, name string }{
	{"/var/log", "wtmp.db"}, // where Debian has it
	{"/var/lib/wtmpdb", "wtmp.db"},
	{"/var/lib/lastlog", "lastlog2.db"},
	{"/run/wtmpdb", "socket"},
}

// ipcFile, below Config.Run, is where a session's mount namespace holds the IPC
// namespace that belongs to it, for pam_xos.
const ipcFile = "ipc"

// furnish makes the calling thread's new namespaces those of a VO.
func (g *Guard) furnish(vo xos.VOName) error {
	// One that is made later would be seen.
	jobs := filepath.Join(g.cgroups.root, g.cgroups.subtree)
	if err := makeDirectory(jobs); err != nil {
		return err
	}
	if err := tmpfs(jobs, "mode=755,size=4k,nr_inodes=2", unix.MS_RDONLY|unix.MS_NOEXEC); err != nil {
		return err
	}
	if err := onlyOwnServices(); err != nil {
		return err
	}
	if err := g.ownSessions(vo); err != nil {
		return err
	}
	for _, at := range g.scratch {
		dir, err := privateDirectory(at)
		if err != nil {
			return err
		}
		if err := bind(dir, at, unix.MS_NOSUID|unix.MS_NODEV); err != nil {
			return err
		}
	}
	if exists("/dev/shm") {
		if err := tmpfs("/dev/shm", "mode=1777", 0); err != nil {
			return err
		}
	}
	if exists("/dev/mqueue") {
		if err := unix.Mount("mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return &os.PathError{Op: "mount", Path: "/dev/mqueue", Err: err}
		}
	}
	if err := onlyRootsDatabases(); err != nil {
		return err
	}
	if err := g.ownRecords(vo); err != nil {
		return err
	}
	if err := g.onlyHomes(vo); err != nil {
		return err
	}
	return bind(ownNamespace("ipc"), filepath.Join(g.run, ipcFile), 0)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func tmpfs(at, options string, flags uintptr) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|flags, options); err != nil {
		return &os.PathError{Op: "mount a tmpfs on", Path: at, Err: err}
	}
	return nil
}

func bind(from, to string, flags uintptr) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind " + from + " to", Path: to, Err: err}
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return &os.PathError{Op: "restrict", Path: to, Err: err}
	}
	return nil
}

// privateDirectory makes one inside a directory where everybody may write, as
// systemd does for PrivateTmp=: the outer one lets nobody through but root, its
// name cannot be guessed nor taken before, and tells nothing.
func privateDirectory(at string) (string, error) {
	outer, err := os.MkdirTemp(at, "xos-private-") // mode 0700
	if err != nil {
		return "", err
	}
	inner := filepath.Join(outer, "tmp")
	if err := os.Mkdir(inner, 0o700); err != nil {
		return "", err
	}
	return inner, os.Chmod(inner, 0o777|fs.ModeSticky)
}

// onlyRootsDatabases keeps the machine's logs from a session's users. Root, who
// logs them in and out there, finds all that is there now.
func onlyRootsDatabases() error {
	for _, d := range databases {
		if !exists(d.dir) && !strings.HasPrefix(d.dir, "/run/") { // what is there comes and goes
			continue
		}
		if err := cover(d.dir, func(at string) error { return linkAll(d.dir, at, d.name) }); err != nil {
			return err
		}
	}
	return nil
}

// linkAll fills a covered directory with links to what is behind, and to one that
// may come. A record has a file to mount the VO's own on, and the journal is seen
// as it is: each user may read her own messages there.
func linkAll(dir, at, coming string) error {
	machine := filepath.Join(at, behind)
	entries, err := os.ReadDir(machine)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(machine, e.Name()), filepath.Join(at, e.Name())
		switch {
		case slices.Contains(records, filepath.Join(dir, e.Name())):
			st, err := os.Stat(from)
			if err == nil {
				err = os.WriteFile(to, nil, 0o600)
			}
			if err == nil {
				err = os.Chmod(to, st.Mode().Perm())
			}
			if err != nil {
				return err
			}
		case dir == "/var/log" && e.Name() == "journal" && e.IsDir():
			if err := errors.Join(os.Mkdir(to, 0o755), bind(from, to, 0)); err != nil {
				return err
			}
		case e.Type() == fs.ModeSymlink:
			where, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(where, to)
			}
			if err != nil {
				return err
			}
		default:
			if err := os.Symlink(filepath.Join(behind, e.Name()), to); err != nil {
				return err
			}
		}
	}
	if err := os.Symlink(filepath.Join(behind, coming), filepath.Join(at, coming)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (g *Guard) ownRecords(vo xos.VOName) error {
	for _, at := range records {
		st, err := os.Stat(at)
		if err != nil {
			continue
		}
		own := filepath.Join(g.recordsDir(), string(vo)+"."+filepath.Base(at))
		if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(own, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		err = f.Chmod(st.Mode().Perm())
		f.Close()
		if err == nil {
			err = bind(own, at, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// homesOf makes a VO's homes a mount of their own, so that one mounted there
// later is seen where that mount is, and nowhere else. It must come before the
// VO's first home.
func (g *Guard) homesOf(vo xos.VOName) error {
	if g.homes == "" || !xos.ValidName(string(vo)) {
		return nil
	}
	for _, dir := range []string{g.homes, filepath.Join(g.homes, string(vo))} {
		if is, err := isMount(dir); err == nil && is {
			continue
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if busy, err := hasMounts(dir); busy || err != nil {
			return errors.Join(err, xos.Errorf(xos.Unavailable, "homes were mounted below %s before they could be kept apart: who is logged in can see the names of others' homes", dir).
				WithHint("restart the machine, or log everybody out"))
		}
		mode := fs.FileMode(0o755)
		if dir != g.homes {
			mode = 0o700 // until it has its group
		}
		if err := ownMount(dir, mode, unix.MS_SHARED); err != nil {
			return err
		}
	}
	return nil
}

// onlyHomes leaves of all homes those of one VO, in the calling thread's mount
// namespace.
func (g *Guard) onlyHomes(vo xos.VOName) error {
	if g.homes == "" {
		return nil
	}
	own := filepath.Join(g.homes, string(vo))
	if is, err := isMount(own); err != nil || !is {
		return nil // see homesOf; the feature says so
	}
	at, err := unix.OpenTree(unix.AT_FDCWD, own, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: own, Err: err}
	}
	defer unix.Close(at)
	if err := unix.Unmount(g.homes, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "unmount", Path: g.homes, Err: err}
	}
	if err := tmpfs(g.homes, "mode=755,size=64k", 0); err != nil {
		return err
	}
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(at, "", unix.AT_FDCWD, own, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: own, Err: err}
	}
	return nil
}
