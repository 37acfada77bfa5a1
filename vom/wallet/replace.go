package wallet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// fresh begins the names of what is not part of the wallet yet, or no longer.
const fresh = ".new-"

// replace writes the files into a new folder and exchanges it with the
// account's in one step: at every moment there is one of the two, whole. Logins
// at the same time wait for each other; what a killed one left is removed.
func (w Wallet) replace(a xos.Account, files map[string][]byte) error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(w.dir, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := w.clear(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(w.dir, fresh)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, data := range files {
		if err := writeSynced(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	if err := exchange(dir, w.path(a)); err != nil {
		return err
	}
	link := filepath.Join(w.dir, fresh+"current")
	if err := os.Symlink(a.String(), link); err != nil {
		return err
	}
	return os.Rename(link, filepath.Join(w.dir, "current"))
}

// clear removes what killed logins left: keys of which nobody knows.
func (w Wallet) clear() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), fresh) {
			if err := os.RemoveAll(filepath.Join(w.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// exchange puts dir at path; what was there is then at dir. A file system that
// cannot do so in one step does it in two.
func exchange(dir, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOENT):
		return os.Rename(dir, path)
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
		return err
	}
	old := dir + ".old"
	if err := os.Rename(path, old); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Rename(dir, path); err != nil {
		return errors.Join(err, os.Rename(old, path))
	}
	return os.RemoveAll(old)
}
