package residue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// open gives the root of a copy of the mount that is attached nowhere and has
// nothing mounted on it: so what is hidden under mounts is seen, and no other
// file system is entered. See open_tree(2).
func (sys system) open() (fd int, err error) {
	if sys.pid == "self" {
		if fd, err = sys.clone(); !errors.Is(err, errHidden) {
			return fd, err
		}
	}
	space, err := os.Open("/proc/" + sys.pid + "/ns/mnt")
	if err != nil {
		return -1, err
	}
	defer space.Close()
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(space.Fd()), unix.CLONE_NEWNS); err != nil {
			return
		}
		if fd, err = sys.clone(); errors.Is(err, errHidden) {
			fd, err = sys.uncover()
		}
	})
	return fd, err
}

// uncover takes what hides the mount away, in a copy of the thread's mount
// namespace that ends with it.
func (sys system) uncover() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, err
	}
	for above := sys.path; above != "/"; above = filepath.Dir(above) {
		for unix.Unmount(above, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			var st unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, sys.path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
			// It is in this very file system that it must be reached.
			if err == nil && fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor) == sys.device && sys.root == "/" {
				return unix.OpenTree(unix.AT_FDCWD, sys.path, unix.AT_SYMLINK_NOFOLLOW|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			}
		}
	}
	return -1, errHidden
}

func (sys system) clone() (int, error) {
	at, err := unix.Open(sys.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var st unix.Statx_t
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return -1, err
	}
	if st.Mnt_id != sys.id {
		return -1, errHidden
	}
	return unix.OpenTree(at, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
}
