package guard

import (
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What fires the hooks that judge acting on a process. Most act on this
// process itself; those that never ask about oneself, on process 1.

func call(trap, a, b, c uintptr) error {
	if _, _, e := unix.Syscall(trap, a, b, c); e != 0 {
		return e
	}
	return nil
}

func killSelf() error { return unix.Kill(os.Getpid(), 0) }

// sigio has a pipe send SIGIO to this thread, which blocks it: it is refused if
// none is pending.
func sigio() (act func() error, undo func(), err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, err
	}
	var only, before unix.Sigset_t
	only.Val[0] = 1 << (unix.SIGIO - 1)
	undo = func() {
		unix.Close(p[0])
		unix.Close(p[1])
		unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &only, &before); err != nil {
		return nil, nil, err
	}
	owner := struct{ kind, pid int32 }{0 /* F_OWNER_TID */, int32(unix.Gettid())}
	if err := call(unix.SYS_FCNTL, uintptr(p[0]), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner))); err != nil {
		return nil, undo, err
	}
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK); err != nil {
		return nil, undo, err
	}
	return func() error {
		if _, err := unix.Write(p[1], []byte{0}); err != nil {
			return err
		}
		var now unix.Timespec
		_, _, e := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&only)), 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if e == unix.EAGAIN {
			return unix.EPERM
		}
		return nil
	}, undo, nil
}

func readInit() error {
	b := make([]byte, unix.PathMax)
	_, err := unix.Readlink("/proc/1/exe", b)
	return err
}

// traceChild starts a child that asks to be traced, and ends it before it runs.
func traceChild() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	return started(cmd)
}

func newUserNamespace() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Ptrace: true}
	return started(cmd)
}

// started starts a child that stops before its first instruction, and ends it.
func started(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	cmd.Process.Kill()
	cmd.Wait()
	return nil
}

func setNice() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 0) }

func getAffinity() error {
	var set unix.CPUSet
	return unix.SchedGetaffinity(0, &set)
}

func setAffinity() (act func() error, undo func(), err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, nil, err
	}
	return func() error { return unix.SchedSetaffinity(0, &set) }, nil, nil
}

const ioprioWhoProcess = 1 // linux/ioprio.h

func setIOPriority() error { return call(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, 0) }
func getIOPriority() error { return call(unix.SYS_IOPRIO_GET, ioprioWhoProcess, 0, 0) }

func limitsOfInit() error {
	var r unix.Rlimit
	return unix.Prlimit(1, unix.RLIMIT_NOFILE, nil, &r)
}

func moveInit() error { return call(unix.SYS_MOVE_PAGES, 1, 0, 0) }

func getSID() error {
	_, err := unix.Getsid(os.Getpid())
	return err
}

func getPGID() error {
	_, err := unix.Getpgid(os.Getpid())
	return err
}

// What fires the hooks on the kernel's surface.

func threadKeyring() error {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_THREAD_KEYRING, true)
	return err
}

func nextProgram() error {
	var attr [16]byte // of BPF_PROG_GET_NEXT_ID
	return call(unix.SYS_BPF, unix.BPF_PROG_GET_NEXT_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

func perfDummy() error {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return err
}
