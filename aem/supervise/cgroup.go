package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
)

// cgroup is a job's cgroup in the version 2 hierarchy, with or without
// controllers in it (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
type cgroup string

// unifiedRoot is where version 2 is mounted: alone, or beside version 1.
func unifiedRoot() (root string, hybrid bool, err error) {
	for i, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			return root, i == 1, nil
		}
	}
	return "", false, xos.Errorf(xos.NotSupported, "this machine has no cgroup version 2: boot with systemd.unified_cgroup_hierarchy=1")
}

func (c cgroup) file(name string) string { return filepath.Join(string(c), name) }

func (c cgroup) write(name, value string) error {
	return os.WriteFile(c.file(name), []byte(value), 0)
}

func (c cgroup) add(pid int) error { return c.write("cgroup.procs", strconv.Itoa(pid)) }

func (c cgroup) pids() []int {
	data, err := os.ReadFile(c.file("cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// number reads "key value" lines, or a lone value for key "".
func (c cgroup) number(file, key string) (int64, bool) {
	data, err := os.ReadFile(c.file(file))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok && key == "" {
			v = k
		} else if k != key {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// freeze stops or resumes every process of the cgroup and waits until it is
// so. A process inside an uninterruptible system call stops when that ends;
// after a second the answer is given all the same.
func (c cgroup) freeze(on bool) error {
	want := "0"
	if on {
		want = "1"
	}
	err := c.write("cgroup.freeze", want)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // before Linux 5.2
		sig := syscall.SIGCONT
		if on {
			sig = syscall.SIGSTOP
		}
		for _, pid := range c.pids() {
			syscall.Kill(pid, sig)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("freezing the job: %w", err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if n, ok := c.number("cgroup.events", "frozen"); !ok || strconv.FormatInt(n, 10) == want {
			break
		}
	}
	return nil
}

// kill ends every process of the cgroup, frozen or not.
func (c cgroup) kill() error {
	err := c.write("cgroup.kill", "1")
	if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	for range 100 { // before Linux 5.14: until no new one is found
		pids := c.pids()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		c.write("cgroup.freeze", "0")
		time.Sleep(2 * time.Millisecond)
	}
	return xos.Errorf(xos.Internal, "the job's processes do not die")
}

// usage adds up what the job has used. Without a memory controller the
// resident memory is summed over its processes, shared pages counted in each.
func (c cgroup) usage() aem.Usage {
	var u aem.Usage
	if n, ok := c.number("cpu.stat", "usage_usec"); ok {
		u.CPU = time.Duration(n) * time.Microsecond
		user, _ := c.number("cpu.stat", "user_usec")
		system, _ := c.number("cpu.stat", "system_usec")
		u.CPUUser, u.CPUSystem = time.Duration(user)*time.Microsecond, time.Duration(system)*time.Microsecond
	}
	u.Read, u.Written, u.Disk = c.disks()
	if n, ok := c.number("memory.current", ""); ok {
		u.Memory = n
		u.Peak, _ = c.number("memory.peak", "")
		return u
	}
	page := int64(os.Getpagesize())
	for _, pid := range c.pids() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(data)); len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			u.Memory += n * page
		}
	}
	return u
}

// disks reads what the controller counted of each disk: "8:0 rbytes=4096
// wbytes=0 rios=1 …". The file is empty until one is touched.
func (c cgroup) disks() (read, written int64, counted bool) {
	data, err := os.ReadFile(c.file("io.stat"))
	if err != nil {
		return 0, 0, false
	}
	for _, field := range strings.Fields(string(data)) {
		key, value, _ := strings.Cut(field, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case key == "rbytes":
			read += n
		case key == "wbytes":
			written += n
		}
	}
	return read, written, true
}

// leave moves this process into a cgroup of supervisors, so that stopping the
// service that started it does not end it, and its limits are not the
// service's.
func leave(root string) error {
	c := cgroup(filepath.Join(root, "xos", "supervisors"))
	if err := os.MkdirAll(string(c), 0o755); err != nil {
		return err
	}
	return c.add(os.Getpid())
}
