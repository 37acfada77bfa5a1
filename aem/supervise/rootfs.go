package supervise

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/xtreemos/xos/aem/unit"
)

// initPath is where a job finds its pid 1.
const initPath = "/run/xos-init"

// prepareRoot binds the host's file system, all of it, read-only to dir. This
// process has a mount namespace of its own, which receives what the host
// mounts (a home that comes back, say) and gives nothing.
func prepareRoot(dir, homes string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &os.PathError{Op: "make slave", Path: "/", Err: err}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind /", Path: dir, Err: err}
	}
	// Where the homes are a mount of their own, the job's root is without
	// them, and others' names are in no list of its mounts. EINVAL: they are not.
	if homes != "" {
		if err := unix.Unmount(filepath.Join(dir, homes), unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return &os.PathError{Op: "unmount", Path: filepath.Join(dir, homes), Err: err}
		}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &attr); err != nil {
		return &os.PathError{Op: "make read-only", Path: dir, Err: err}
	}
	return nil
}

// mounts are what a job sees beside the host's read-only file system: /proc of
// its own pid namespace, a /dev of its own, private /tmp, /var/tmp, /run and
// /dev/shm, and the homes of its VO, read and write, in which a home mounted
// later appears.
func mounts(s unit.Spec, self string) []*configs.Mount {
	tmp := func(at, options string) *configs.Mount {
		return &configs.Mount{Source: "tmpfs", Device: "tmpfs", Destination: at, Data: options,
			Flags: unix.MS_NOSUID | unix.MS_NODEV}
	}
	list := []*configs.Mount{
		{Source: "proc", Device: "proc", Destination: "/proc", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{Source: "tmpfs", Device: "tmpfs", Destination: "/dev", Data: "mode=755,size=64k", Flags: unix.MS_NOSUID | unix.MS_STRICTATIME},
		{Source: "devpts", Device: "devpts", Destination: "/dev/pts", Data: "newinstance,ptmxmode=0666,mode=0620,gid=5", Flags: unix.MS_NOSUID | unix.MS_NOEXEC},
		tmp("/dev/shm", "mode=1777"),
		{Source: "mqueue", Device: "mqueue", Destination: "/dev/mqueue", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		tmp("/tmp", "mode=1777"),
		// Its own cgroup and those below, as the root of a cgroup namespace.
		{Source: "cgroup", Device: "cgroup", Destination: "/sys/fs/cgroup", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY},
		tmp("/run", "mode=755,size=1m"),
		{Source: self, Device: "bind", Destination: initPath, Flags: unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV},
	}
	if isDir("/var/tmp") {
		list = append(list, tmp("/var/tmp", "mode=1777"))
	}
	// Who was logged in, of which VO, stands there for everybody to read.
	for _, at := range []string{"/var/log", "/var/lib/wtmpdb", "/var/lib/lastlog"} {
		if isDir(at) {
			list = append(list, &configs.Mount{Source: "tmpfs", Device: "tmpfs", Destination: at, Data: "mode=755,size=4k,nr_inodes=2",
				Flags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC})
		}
	}
	if isDir(s.Runtime) {
		// The directory, not the sockets: they are new after a restart of the
		// daemon. What in it is for root stays so by its mode.
		list = append(list, &configs.Mount{Source: s.Runtime, Device: "bind", Destination: s.Runtime,
			Flags: unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC})
	}
	// Where the resolver's configuration points into /run, show that file.
	if at, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && strings.HasPrefix(at, "/run/") {
		list = append(list, &configs.Mount{Source: filepath.Dir(at), Device: "bind", Destination: filepath.Dir(at),
			Flags: unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC})
	}
	if isDir(s.HomesRoot) {
		list = append(list, tmp(s.HomesRoot, "mode=755,size=64k"))
	}
	if isDir(s.Homes) {
		list = append(list, &configs.Mount{Source: s.Homes, Device: "bind", Destination: s.Homes,
			Flags: unix.MS_BIND | unix.MS_REC | unix.MS_NOSUID | unix.MS_NODEV, PropagationFlags: []int{unix.MS_REC | unix.MS_SLAVE}})
	}
	return list
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return path != "" && err == nil && st.IsDir()
}
