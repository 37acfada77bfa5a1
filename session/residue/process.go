package residue

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// whole is the length of a user namespace's map that maps all ids, as the
// first one's does: see user_namespaces(7).
const whole = 1<<32 - 1

// gone reports whether an error only says that a thing is not there any more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EINVAL)
}

// pids gives the processes of this pid namespace and those below it.
func pids() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	var out []string
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// processes looks at each thread's ids, each process's open files and each
// user namespace. It gives the processes that have an id.
func (s *search) processes(ctx context.Context) (holders map[string]uint32) {
	holders = map[string]uint32{}
	all, err := pids()
	if err != nil {
		s.blind(Process, "/proc", err)
	}
	spaces := map[string]bool{}
	for _, pid := range all {
		if ctx.Err() != nil {
			return holders
		}
		dir := "/proc/" + pid
		tasks, err := os.ReadDir(dir + "/task")
		if err != nil && !gone(err) {
			s.blind(Process, dir, err)
		}
		for _, task := range tasks {
			data, err := os.ReadFile(dir + "/task/" + task.Name() + "/status")
			if err != nil {
				if !gone(err) {
					s.blind(Process, dir, err)
				}
				continue
			}
			s.saw(Process)
			for id, why := range s.status(string(data)) {
				holders[pid] = id
				s.found(id, Process, "process "+pid+" "+comm(string(data)), why)
			}
		}
		s.userNamespace(dir, spaces)
		s.openFiles(dir)
	}
	return holders
}

func comm(status string) string {
	first, _, _ := strings.Cut(status, "\n")
	_, name, _ := strings.Cut(first, "\t")
	return strconv.Quote(name)
}

// status reads proc_pid_status(5): which ids a thread has, and as what.
func (s *search) status(text string) map[uint32]string {
	out := map[uint32]string{}
	roles := []string{"real", "effective", "saved", "file system"}
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		if key != "Uid" && key != "Gid" && key != "Groups" {
			continue
		}
		for i, f := range strings.Fields(rest) {
			id, err := strconv.ParseUint(f, 10, 32)
			owner, ok := s.whose(uint32(id))
			if err != nil || !ok {
				continue
			}
			why := "supplementary group"
			if key != "Groups" && i < len(roles) {
				why = roles[i] + " " + strings.ToLower(key)
			}
			if _, ok := out[owner]; !ok {
				out[owner] = as(uint32(id), owner, why)
			}
		}
	}
	return out
}

// userNamespace looks at the namespace a process is in, once each: its owner
// has every capability in it, and who enters it may become what it maps to.
func (s *search) userNamespace(dir string, spaces map[string]bool) {
	name, err := os.Readlink(dir + "/ns/user")
	if err != nil || spaces[name] {
		return // a process without memory; its ids were seen
	}
	spaces[name] = true
	s.saw(Namespace)
	f, err := os.Open(dir + "/ns/user")
	if err != nil {
		if !gone(err) {
			s.blind(Namespace, dir, err)
		}
		return
	}
	defer f.Close()
	where := name + " of process " + filepath.Base(dir)
	if uid, err := unix.IoctlGetUint32(int(f.Fd()), nsGetOwnerUID); err == nil {
		if id, ok := s.whose(uid); ok {
			s.found(id, Namespace, where, as(uid, id, "owner"))
		}
	}
	for _, m := range []string{"uid_map", "gid_map"} {
		data, err := os.ReadFile(dir + "/" + m)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			var n [3]uint64
			fields := strings.Fields(line)
			for i := range min(3, len(fields)) {
				n[i], _ = strconv.ParseUint(fields[i], 10, 64)
			}
			if n[2] == whole {
				continue
			}
			for id := range s.ids {
				if uint64(id) >= n[1] && uint64(id)-n[1] < n[2] {
					s.found(id, Namespace, where, m)
				}
			}
			for first, id := range s.subs {
				if uint64(first) < n[1]+n[2] && n[1] < uint64(first)+SubIDs && n[2] > 0 {
					s.found(id, Namespace, where, m+" (subordinate ids)")
				}
			}
		}
	}
}

// openFiles looks at what a process has open: a deleted file, a memfd, a pipe
// or a socket has an owner, and no path at which the walk would find it.
func (s *search) openFiles(dir string) {
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		if !gone(err) {
			s.blind(OpenFile, dir+"/fd", err)
		}
		return
	}
	for _, e := range entries {
		path := dir + "/fd/" + e.Name()
		var st unix.Statx_t
		// Without asking a server: one that is away must not hold this up.
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_UID|unix.STATX_GID, &st); err != nil {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ESTALE) {
				s.skip(OpenFile, "descriptors on FUSE and network volumes", "their owners are not local ids")
			} else if !gone(err) {
				s.blind(OpenFile, path, err)
			}
			continue
		}
		s.saw(OpenFile)
		_, byUser := s.whose(st.Uid)
		if _, byGroup := s.whose(st.Gid); byUser || byGroup {
			target, _ := os.Readlink(path)
			s.owned(OpenFile, target+" held by process "+filepath.Base(dir), st.Uid, st.Gid)
		}
	}
}

// locks looks at proc_locks(5): file locks and leases of processes with an id.
func (s *search) locks(holders map[string]uint32) {
	data, err := os.ReadFile("/proc/locks")
	if err != nil {
		if !gone(err) {
			s.blind(Lock, "/proc/locks", err)
		}
		return
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(strings.Replace(line, "->", "", 1))
		if len(fields) < 6 {
			continue
		}
		s.saw(Lock)
		if id, ok := holders[fields[4]]; ok {
			s.found(id, Lock, fields[1]+" lock on "+fields[5]+" of process "+fields[4], "held")
		}
	}
}

// keyrings looks at /proc/key-users, see keyrings(7): the owners of all keys,
// also of those that nobody may view.
func (s *search) keyrings() {
	ids, err := keyOwners()
	if err != nil && !gone(err) {
		s.blind(Keyring, "/proc/key-users", err)
	}
	for _, id := range ids {
		s.saw(Keyring)
		if owner, ok := s.whose(id); ok {
			s.found(owner, Keyring, "/proc/key-users", as(id, owner, "owner of keys"))
		}
	}
}

func keyOwners() ([]uint32, error) {
	data, err := os.ReadFile("/proc/key-users")
	var out []uint32
	for line := range strings.Lines(string(data)) {
		first, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if id, err := strconv.ParseUint(first, 10, 32); ok && err == nil {
			out = append(out, uint32(id))
		}
	}
	return out, err
}

// nsGetOwnerUID is NS_GET_OWNER_UID of ioctl_nsfs(2).
const nsGetOwnerUID = 0xb704
