package residue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own that ends with it, so that f may
// enter namespaces and lower priorities. It returns when f has.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread goes too
		f()
	}()
	<-done
}

// ipc looks at each IPC namespace that a process is in: System V objects and
// POSIX message queues outlive their processes, see ipc_namespaces(7).
func (s *search) ipc(ctx context.Context) {
	all, _ := pids()
	spaces := map[string]bool{}
	for _, pid := range all {
		name, err := os.Readlink("/proc/" + pid + "/ns/ipc")
		if err != nil || spaces[name] || ctx.Err() != nil {
			continue
		}
		f, err := os.Open("/proc/" + pid + "/ns/ipc")
		if err != nil {
			if !gone(err) {
				s.blind(SysV, name, err)
			}
			continue
		}
		spaces[name] = true
		onThread(func() {
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWIPC); err != nil {
				s.blind(SysV, name, err)
				return
			}
			for _, table := range []string{"shm", "sem", "msg"} {
				s.sysv(name, table)
			}
			if err := s.mqueues(name); err != nil {
				s.blind(MQueue, name, err)
			}
		})
		f.Close()
	}
}

// sysv reads /proc/sysvipc/TABLE, which is that of the thread's namespace.
func (s *search) sysv(space, table string) {
	data, err := os.ReadFile("/proc/sysvipc/" + table)
	if err != nil {
		if !gone(err) {
			s.blind(SysV, table, err)
		}
		return
	}
	head, rest, _ := strings.Cut(string(data), "\n")
	columns := strings.Fields(head)
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) != len(columns) {
			s.blind(SysV, table, errors.New("a line that has not its heading's columns"))
			return
		}
		s.saw(SysV)
		for i, c := range columns {
			if c != "uid" && c != "gid" && c != "cuid" && c != "cgid" {
				continue
			}
			id, err := strconv.ParseUint(fields[i], 10, 32)
			if owner, ok := s.whose(uint32(id)); err == nil && ok {
				s.found(owner, SysV, table+" "+fields[1]+" in "+space, as(uint32(id), owner, c))
			}
		}
	}
}

// mqueues lists mq_overview(7)'s file system of the thread's namespace, by a
// mount that is attached nowhere.
func (s *search) mqueues(space string) error {
	fd, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		s.skip(MQueue, space, "the kernel has none")
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return err
	}
	at, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mount := os.NewFile(uintptr(at), "mqueue")
	defer mount.Close()
	dir, err := openat(at, ".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if gone(err) {
				continue
			}
			return err
		}
		s.saw(MQueue)
		s.owned(MQueue, filepath.Join("/", name)+" in "+space, st.Uid, st.Gid)
	}
	return nil
}

// openat opens a directory for reading, without a trace on it.
func openat(at int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(at, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
