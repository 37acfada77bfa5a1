package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The sockets below dbusDir and systemdDir tell everybody who is logged in, of
// which VO, and what runs for whom: the system bus (logind, systemd, machined;
// by dbus-daemon or dbus-broker) and the varlink sockets beside it. In a
// session all of it is for root only, whose processes log people in and out
// there. What a user's programs need is shown again, by name: a socket that a
// later systemd brings is hidden until somebody has looked at it.
const (
	dbusDir    = "/run/dbus"
	systemdDir = "/run/systemd"
	// behind, in such a directory, is where root finds the machine's own: the
	// first part lets nobody else through.
	behind = ".machine/run"
)

var (
	// shown are directories in systemdDir that tell of no user: the journal's
	// sockets for messages, and name resolution.
	shown = []string{"journal", "resolve"}
	// shownFiles are single files: where a user's service manager says that it
	// is ready, and what kind of machine this is.
	shownFiles = []string{"notify", "container"}
	// empty directories are looked for by their names ("system" says that
	// systemd runs, "seats" that logind does, "mount-rootfs" is where a user's
	// service manager builds its services' namespaces), or read by libsystemd,
	// which takes an empty one as nobody's.
	empty = []string{"system", "seats", "users", "sessions", "machines", "units", "transient", "inhibit", "ask-password", "mount-rootfs"}
	// forRoot are sockets that root's processes ask for in systemdDir, and that
	// a later systemd may make. They are links to behind; so are those that
	// are there now.
	forRoot = []string{"private", "io.systemd.Login", "io.systemd.Manager"}
)

// onlyOwnServices keeps the machine's services, and what they tell of others,
// from a session's users, in the calling thread's mount namespace.
func onlyOwnServices() error {
	err := cover(dbusDir, func(at string) error {
		return os.Symlink(filepath.Join(behind, "system_bus_socket"), filepath.Join(at, "system_bus_socket"))
	})
	if err != nil {
		return err
	}
	if !exists(systemdDir) {
		return nil
	}
	return cover(systemdDir, showSystemd)
}

// showSystemd fills a session's systemdDir.
func showSystemd(at string) error {
	machine := filepath.Join(at, behind)
	for _, name := range shown {
		// One that is made later would not be seen.
		if err := makeDirectory(filepath.Join(machine, name)); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(at, name), 0o755); err != nil {
			return err
		}
		if err := bind(filepath.Join(machine, name), filepath.Join(at, name), 0); err != nil {
			return err
		}
	}
	for _, name := range shownFiles {
		if !exists(filepath.Join(machine, name)) {
			continue
		}
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o444); err != nil {
			return err
		}
		if err := bind(filepath.Join(machine, name), filepath.Join(at, name), 0); err != nil {
			return err
		}
	}
	for _, name := range empty {
		if err := os.Mkdir(filepath.Join(at, name), 0o755); err != nil {
			return err
		}
	}
	links := slices.Clone(forRoot)
	entries, err := os.ReadDir(machine)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() == fs.ModeSocket && strings.HasPrefix(e.Name(), "io.systemd.") && !slices.Contains(links, e.Name()) {
			links = append(links, e.Name())
		}
	}
	for _, name := range links {
		if err := os.Symlink(filepath.Join(behind, name), filepath.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

// cover puts a directory of a session's own in place of the machine's, which
// root finds in it as behind, and nobody else.
func cover(at string, fill func(at string) error) error {
	// One that is made later would be seen.
	if err := makeDirectory(at); errors.Is(err, fs.ErrNotExist) {
		return nil // no /run here
	} else if err != nil {
		return err
	}
	machine, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: at, Err: err}
	}
	defer unix.Close(machine)
	// It becomes read-only below. systemd of Debian 13, a user's too, reloads only
	// where 16 MiB are free here.
	const options = "mode=755,size=32m,nr_inodes=4096"
	if err := tmpfs(at, options, unix.MS_NOEXEC); err != nil {
		return err
	}
	own := filepath.Join(at, behind)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(machine, "", unix.AT_FDCWD, own, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: own, Err: err}
	}
	if err := fill(at); err != nil {
		return err
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return &os.PathError{Op: "restrict", Path: at, Err: err}
	}
	return nil
}

// makeDirectory makes one that need not be missing.
func makeDirectory(at string) error {
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
