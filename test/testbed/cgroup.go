package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// subtree is the one cgroup below which all grids live.
const subtree = "xtreemos-testbed"

// cgroupRoot is where the cgroup2 hierarchy is mounted: alone, or beside the
// version 1 hierarchies.
func cgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified")
}

// makeCgroup makes the grid's cgroup, with every controller the host lets it
// have.
func makeCgroup(name string) (string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, subtree, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, level := range []string{filepath.Join(root, subtree), dir} {
		have, err := os.ReadFile(filepath.Join(level, "cgroup.controllers"))
		if err != nil {
			return "", err
		}
		for controller := range strings.FieldsSeq(string(have)) {
			// A controller that cannot be had is one the nodes do without.
			_ = os.WriteFile(filepath.Join(level, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
	}
	return dir, nil
}

// killCgroup ends every process below dir and removes it. A directory that
// does not exist is done already.
func killCgroup(ctx context.Context, dir string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = removeCgroup(dir)
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("emptying cgroup %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

// removeLegacyCgroups removes what nspawn mirrors of the grid's cgroup into the
// version 1 hierarchies of a host that has them. They are empty by then.
func removeLegacyCgroups(name string) {
	dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", subtree))
	for _, dir := range dirs {
		_ = removeCgroup(filepath.Join(dir, name))
		_ = unix.Rmdir(dir)
	}
}

// cgroupPids lists the processes of dir and of everything below it.
func cgroupPids(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil // gone, or threaded
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// initOf finds the process that is number 1 in its own pid namespace below a
// node's cgroup: the container's systemd.
func initOf(cgroup string) (int, error) {
	pids, err := cgroupPids(cgroup)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		numbers := strings.Fields(line)
		if len(numbers) == 2 && numbers[1] == "1" {
			return pid, nil
		}
	}
	return 0, fs.ErrNotExist
}
