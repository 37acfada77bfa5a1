package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signals is what one process may do to another by its number.
var signals = map[string]func(Target) error{
	"kill":         func(t Target) error { return unix.Kill(t.PID, unix.SIGURG) },
	"kill a group": func(t Target) error { return group(t) },
	"tgkill":       func(t Target) error { return unix.Tgkill(t.PID, t.TID, unix.SIGURG) },
	"sigqueue":     func(t Target) error { return sigqueue(t) },
	"pidfd_send_signal": func(t Target) error {
		return byPidfd(t, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGURG, nil, 0) })
	},
	"pkill":       func(t Target) error { return succeeds("pkill", "-URG", "-f", "victim "+t.Marker) },
	"setpriority": func(t Target) error { return unix.Setpriority(unix.PRIO_PROCESS, t.PID, 19) },
	"ioprio_set":  func(t Target) error { return raw(unix.SYS_IOPRIO_SET, 1, uintptr(t.PID), 2<<13|4, 0, 0) },
	"sched_setaffinity": func(t Target) error {
		var s unix.CPUSet
		if err := unix.SchedGetaffinity(0, &s); err != nil {
			return err
		}
		return unix.SchedSetaffinity(t.PID, &s)
	},
	"prlimit":              func(t Target) error { var l unix.Rlimit; return unix.Prlimit(t.PID, unix.RLIMIT_NOFILE, nil, &l) },
	"userns: kill as root": func(t Target) error { return asRoot("kill", t) },
}

func raw(nr uintptr, a ...uintptr) error {
	var v [6]uintptr
	copy(v[:], a)
	_, _, e := unix.Syscall6(nr, v[0], v[1], v[2], v[3], v[4], v[5])
	if e != 0 {
		return e
	}
	return nil
}

func group(t Target) error {
	pg, err := unix.Getpgid(t.PID)
	if err != nil {
		return err
	}
	if pg == 0 { // of another pid namespace
		pg = t.PID
	}
	return unix.Kill(-pg, unix.SIGURG)
}

func sigqueue(t Target) error {
	info := [16]uint64{}
	p := (*[4]int32)(unsafe.Pointer(&info))
	p[0], p[2] = int32(unix.SIGURG), -1 // si_code SI_QUEUE
	return raw(unix.SYS_RT_SIGQUEUEINFO, uintptr(t.PID), uintptr(unix.SIGURG), uintptr(unsafe.Pointer(&info)))
}

func byPidfd(t Target, f func(int) error) error {
	fd, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// memory is what looks into another process.
var memory = map[string]func(Target) error{
	"ptrace attach":        func(t Target) error { return trace(t, unix.PTRACE_ATTACH) },
	"ptrace seize":         func(t Target) error { return trace(t, unix.PTRACE_SEIZE) },
	"process_vm_readv":     func(t Target) error { return vmRead(t) },
	"/proc: PID/mem":       func(t Target) error { return open(fmt.Sprintf("/proc/%d/mem", t.PID)) },
	"/proc: PID/environ":   func(t Target) error { return read(fmt.Sprintf("/proc/%d/environ", t.PID), "USER=") },
	"/proc: PID/fd":        func(t Target) error { return lists(fmt.Sprintf("/proc/%d/fd", t.PID), "1") },
	"/proc: PID/maps":      func(t Target) error { return read(fmt.Sprintf("/proc/%d/maps", t.PID), "stack") },
	"/proc: PID/root":      func(t Target) error { return lists(fmt.Sprintf("/proc/%d/root", t.PID), "etc") },
	"/proc: PID/cwd":       func(t Target) error { return open(fmt.Sprintf("/proc/%d/cwd", t.PID)) },
	"/proc: PID/exe":       func(t Target) error { return open(fmt.Sprintf("/proc/%d/exe", t.PID)) },
	"/proc: PID/ns":        func(t Target) error { return open(fmt.Sprintf("/proc/%d/ns/mnt", t.PID)) },
	"/proc: PID/io":        func(t Target) error { return read(fmt.Sprintf("/proc/%d/io", t.PID), "rchar") },
	"/proc: PID/mountinfo": func(t Target) error { return read(fmt.Sprintf("/proc/%d/mountinfo", t.PID), "/proc") },
	"pidfd_getfd": func(t Target) error {
		return byPidfd(t, func(fd int) error { n, err := unix.PidfdGetfd(fd, 1, 0); unix.Close(n); return err })
	},
	"kcmp": func(t Target) error { return raw(unix.SYS_KCMP, uintptr(t.PID), uintptr(os.Getpid()), 1, 0, 0) },
	"get_robust_list": func(t Target) error {
		var p, n uintptr
		return raw(unix.SYS_GET_ROBUST_LIST, uintptr(t.PID), uintptr(unsafe.Pointer(&p)), uintptr(unsafe.Pointer(&n)))
	},
	"move_pages":                 func(t Target) error { return raw(unix.SYS_MOVE_PAGES, uintptr(t.PID), 0, 0, 0, 0, 0) },
	"perf_event_open":            func(t Target) error { return perf(t) },
	"userns: environ as root":    func(t Target) error { return asRoot("environ", t) },
	"userns: a /proc of its own": func(t Target) error { return asRoot("proc", t) },
	"userns: uncover /proc":      func(t Target) error { return asRoot("uncover", t) },
	"userns: uncover /home/xos":  func(t Target) error { return asRoot("homes", t) },
	"userns: uncover /tmp":       func(t Target) error { return asRoot("tmp", t) },
	"userns: uncover /run/dbus":  func(t Target) error { return asRoot("bus", t) },
	"userns: system bus as root": func(t Target) error { return asRoot("bus as root", t) },
	"core_pattern": func(t Target) error {
		f, err := os.OpenFile("/proc/sys/kernel/core_pattern", os.O_WRONLY, 0)
		f.Close()
		return err
	},
	"setns into its namespace": func(t Target) error { return asRoot("setns", t) },
	"open_by_handle_at":        func(t Target) error { return byHandle() },
	"/proc: clear_refs, oom score": func(t Target) error {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", t.PID), os.O_WRONLY, 0)
		f.Close()
		return err
	},
}

func open(path string) error {
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	return err
}

// trace attaches for a moment, from a thread that does nothing else.
func trace(t Target, how uintptr) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := raw(unix.SYS_PTRACE, how, uintptr(t.PID), 0, 0); err != nil {
			done <- err
			return
		}
		if how == unix.PTRACE_SEIZE {
			raw(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(t.PID), 0, 0)
		}
		unix.Wait4(t.PID, nil, unix.WALL, nil)
		done <- raw(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(t.PID), 0, 0)
	}()
	return <-done
}

func vmRead(t Target) error {
	var buf [8]byte
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	// Where Go programs without relocation begin.
	_, err := unix.ProcessVMReadv(t.PID, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	return err
}

func perf(t Target) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Bits: unix.PerfBitExcludeKernel}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, t.PID, -1, -1, 0)
	unix.Close(fd)
	return err
}

func byHandle() error {
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc/shadow", 0)
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), h, unix.O_RDONLY)
	unix.Close(fd)
	return err
}
