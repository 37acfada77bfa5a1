package process

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Scope is the control group that logind keeps the processes of one login in,
// as a path below the cgroup v2 mount: /user.slice/user-UID.slice/session-N.scope.
// A process cannot leave it without root's help. "" is none.
type Scope string

// ScopeOf gives the scope that a running process is in, if it is one of a login
// of this user: root's su, say, stays in root's. "" where logind made none.
func ScopeOf(id ID, uid uint32) Scope {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", id.PID))
	if err != nil {
		return ""
	}
	if now, err := Of(id.PID); err != nil || now != id {
		return "" // it was another's already
	}
	for line := range strings.Lines(string(data)) {
		at, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::")
		if !ok || at != path.Clean(at) || strings.HasPrefix(at, "/..") {
			continue
		}
		slice, name := path.Split(at)
		if strings.HasPrefix(name, "session-") && strings.HasSuffix(name, ".scope") && path.Base(slice) == fmt.Sprintf("user-%d.slice", uid) {
			return Scope(at)
		}
	}
	return ""
}

// Empty reports whether no process is left in a scope, or below it. None, and
// one that cannot be looked at, is empty.
func (s Scope) Empty() bool {
	data, err := s.read("cgroup.events")
	return err != nil || !strings.Contains(data, "populated 1")
}

// Others reports whether a scope has other processes than one.
func (s Scope) Others(than ID) bool {
	data, err := s.read("cgroup.procs")
	if err != nil {
		return false
	}
	for pid := range strings.Lines(data) {
		if strings.TrimSpace(pid) != strconv.Itoa(than.PID) {
			return true
		}
	}
	return false
}

// Kill ends all processes of a scope; it is no error if there is none.
func (s Scope) Kill() error {
	dir, err := s.dir()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	}
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return xos.Errorf(xos.Internal, "killing the processes of %s: %w", s, err)
}

func (s Scope) read(name string) (string, error) {
	dir, err := s.dir()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	return string(data), err
}

// dir is where a scope is mounted: on machines that have cgroup v1 beside it,
// in a directory of its own.
func (s Scope) dir() (string, error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); s != "" && err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return filepath.Join(root, string(s)), nil
		}
	}
	return "", os.ErrNotExist
}
