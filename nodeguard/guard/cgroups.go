package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// wantedControllers are those by which a VO's use of the machine is bounded.
var wantedControllers = []string{"cpu", "memory", "pids", "io"}

// cgroups is the subtree of VOs and jobs: root/subtree/vo-VO/job-ID.
type cgroups struct {
	root, subtree string
}

// findRoot gives the mount point of cgroup version 2: alone, or beside 1.
func findRoot(root string) (string, error) {
	candidates := []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
	if root != "" {
		candidates = []string{root}
	}
	for _, c := range candidates {
		var st unix.Statfs_t
		if err := unix.Statfs(c, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return c, nil
		}
	}
	return "", xos.Errorf(xos.NotSupported, "no cgroup version 2 is mounted").WithHint("boot with systemd.unified_cgroup_hierarchy=1")
}

// prepare makes the subtree and hands down what controllers there are.
func (c cgroups) prepare() error {
	dir := filepath.Join(c.root, c.subtree)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return xos.Errorf(xos.NotSupported, "making cgroup %s: %w", dir, err)
	}
	c.handDown(c.root)
	c.handDown(dir)
	return nil
}

// handDown enables the wanted controllers for the children of dir. One that
// cannot be enabled is missing in the features, and limits by it are refused.
func (c cgroups) handDown(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, name := range strings.Fields(string(data)) {
		if slices.Contains(wantedControllers, name) {
			os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0)
		}
	}
}

// controller reports whether jobs can be bounded by a controller.
func (c cgroups) controller(name string) error {
	data, err := os.ReadFile(filepath.Join(c.root, c.subtree, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(data)), name) {
		return nil
	}
	return xos.Errorf(xos.NotSupported, "cgroup version 2 has no %s controller here: version 1 holds it, or a container does not pass it on", name)
}

func (c cgroups) path(vo xos.VOName, job xos.JobID) (string, error) {
	if !xos.ValidName(string(vo)) || job == "" || strings.ContainsAny(string(job), "/\x00\n") || strings.HasPrefix(string(job), ".") {
		return "", xos.Errorf(xos.Invalid, "no cgroup for job %.80q of VO %.80q", job, vo)
	}
	return filepath.Join("/", c.subtree, "vo-"+string(vo), "job-"+string(job)), nil
}

// make makes a job's cgroup below its VO's, which it bounds.
func (c cgroups) make(vo xos.VOName, job xos.JobID, most Ceilings) (string, error) {
	path, err := c.path(vo, job)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.root, path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", xos.Errorf(xos.Unavailable, "making a cgroup for VO %s: %w", vo, err)
	}
	c.handDown(filepath.Dir(dir))
	if err := most.bound(filepath.Dir(dir)); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", xos.Errorf(xos.Unavailable, "making a cgroup for job %s: %w", job, err)
	}
	return path, nil
}

// remove kills everything in the job's cgroup and below it, waits until it is
// gone, and removes it.
func (c cgroups) remove(ctx context.Context, vo xos.VOName, job xos.JobID) error {
	path, err := c.path(vo, job)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.root, path)
	if err := killAll(dir); gone(err) {
		return nil
	} else if err != nil {
		return xos.Errorf(xos.Internal, "killing job %s: %w", job, err)
	}
	for {
		if err = removeTree(dir); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return xos.Errorf(xos.Unavailable, "processes of job %s do not end: %w", job, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// killAll kills all in a cgroup and below it.
func killAll(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}

// removeTree removes a cgroup and those below it; EBUSY while processes live.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
