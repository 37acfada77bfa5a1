package guard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/uring"
)

// prey tells what a process left open for everybody, as far as modes go.
type prey struct {
	PID, Shm, Msg, Key int
	File, Program      string
	Abstract           string // of a stream; with "d", of datagrams
	Pins, Cgroup       string // of the guard; set by the test
}

func namesOf[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// nothing is a program that does nothing, well.
const nothing = "/usr/bin/true"

// leaveOpen is the prey's process.
func leaveOpen(dir string) int {
	unix.Umask(0)
	p := prey{PID: os.Getpid(), File: filepath.Join(dir, "file"), Program: filepath.Join(dir, "program"), Abstract: fmt.Sprintf("@xos-prey-%d", os.Getpid())}
	err := os.WriteFile(p.File, []byte("x"), 0o666)
	if err == nil {
		var does []byte
		if does, err = os.ReadFile(nothing); err == nil {
			err = os.WriteFile(p.Program, does, 0o777)
		}
	}
	id, _, e := unix.Syscall(unix.SYS_SHMGET, unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666)
	p.Shm = int(id)
	id, _, e2 := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o666, 0)
	p.Msg = int(id)
	// In a keyring of its own, so that the key is possessed, whatever keyring
	// who starts this has; keyrings are a thread's.
	runtime.LockOSThread()
	key, kerr := 0, sys(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0) // 0: without a name
	if kerr == nil {
		key, kerr = unix.AddKey("user", p.Abstract, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	}
	if kerr == nil {
		kerr = unix.KeyctlSetperm(key, 0x3f3f3f3f)
	}
	p.Key = key
	stream, serr := net.Listen("unix", p.Abstract)
	datagrams, derr := net.ListenPacket("unixgram", p.Abstract+"d")
	for _, err := range []error{err, kerr, serr, derr} {
		if err != nil {
			fmt.Fprintln(os.Stderr, "prey:", err)
			return 1
		}
	}
	if e != 0 || e2 != 0 {
		fmt.Fprintln(os.Stderr, "prey:", e, e2)
		return 1
	}
	go func() {
		for {
			if _, err := stream.Accept(); err != nil {
				return
			}
		}
	}()
	json.NewEncoder(os.Stdout).Encode(p)
	io.Copy(io.Discard, os.Stdin)
	datagrams.Close()
	unix.SysvShmCtl(p.Shm, unix.IPC_RMID, nil)
	unix.Syscall(unix.SYS_MSGCTL, uintptr(p.Msg), unix.IPC_RMID, 0)
	return 0
}

// prowl is what keeps VOs apart; each is harmless to the prey.
var prowl = map[string]func(prey) error{
	"kill":   func(p prey) error { return unix.Kill(p.PID, 0) },
	"tgkill": func(p prey) error { return unix.Tgkill(p.PID, p.PID, unix.SIGURG) },
	"pidfd_send_signal": func(p prey) error {
		return onPidfd(p, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGURG, nil, 0) })
	},
	"pidfd_getfd": func(p prey) error {
		return onPidfd(p, func(fd int) error { n, err := unix.PidfdGetfd(fd, 0, 0); unix.Close(n); return err })
	},
	"/proc: environ":    func(p prey) error { return opens(fmt.Sprintf("/proc/%d/environ", p.PID), os.O_RDONLY) },
	"/proc: mem":        func(p prey) error { return opens(fmt.Sprintf("/proc/%d/mem", p.PID), os.O_RDONLY) },
	"/proc: stat":       func(p prey) error { return opens(fmt.Sprintf("/proc/%d/stat", p.PID), os.O_RDONLY) },
	"/proc: exe":        func(p prey) error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID)); return err },
	"kcmp":              func(p prey) error { return sys(unix.SYS_KCMP, p.PID, os.Getpid(), 1) },
	"setpriority":       func(p prey) error { return unix.Setpriority(unix.PRIO_PROCESS, p.PID, 0) },
	"sched_setaffinity": func(p prey) error { return affinity(p.PID, unix.SchedSetaffinity) },
	"sched_getaffinity": func(p prey) error { return affinity(p.PID, func(int, *unix.CPUSet) error { return nil }) },
	"ioprio_set":        func(p prey) error { return sys(unix.SYS_IOPRIO_SET, 1, p.PID, 0) },
	"ioprio_get":        func(p prey) error { return sys(unix.SYS_IOPRIO_GET, 1, p.PID, 0) },
	"prlimit": func(p prey) error {
		var r unix.Rlimit
		return unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &r)
	},
	"getsid":                    func(p prey) error { _, err := unix.Getsid(p.PID); return err },
	"getpgid":                   func(p prey) error { _, err := unix.Getpgid(p.PID); return err },
	"move_pages":                func(p prey) error { return sys(unix.SYS_MOVE_PAGES, p.PID, 0, 0) },
	"open":                      func(p prey) error { return opens(p.File, os.O_RDONLY) },
	"stat":                      func(p prey) error { _, err := os.Stat(p.File); return err },
	"execute":                   func(p prey) error { return exec.Command(p.Program).Run() },
	"abstract: stream":          func(p prey) error { return dials("unix", p.Abstract) },
	"io_uring: open":            func(p prey) error { return uring.Open(p.File, false) },
	"io_uring: connect":         func(p prey) error { return uringDials(p.Abstract, false) },
	"io_uring: open, polled":    func(p prey) error { return uring.Open(p.File, true) },
	"io_uring: connect, polled": func(p prey) error { return uringDials(p.Abstract, true) },
	"abstract: datagram":        func(p prey) error { return dials("unixgram", p.Abstract+"d") },
	"abstract: sendto": func(p prey) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: p.Abstract + "d"})
	},
	"shmat": func(p prey) error {
		at, _, e := unix.Syscall(unix.SYS_SHMAT, uintptr(p.Shm), 0, unix.SHM_RDONLY)
		if e != 0 {
			return e
		}
		return sys(unix.SYS_SHMDT, int(at), 0, 0)
	},
	"shm: any": anySegment,
	"msgsnd": func(p prey) error {
		m := [2]int64{1, 0}
		if _, _, e := unix.Syscall6(unix.SYS_MSGSND, uintptr(p.Msg), uintptr(unsafe.Pointer(&m)), 8, unix.IPC_NOWAIT, 0, 0); e != 0 {
			return e
		}
		return nil
	},
	"key": func(p prey) error { _, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, p.Key); return err },
}

func uringDials(abstract string, polled bool) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return uring.ConnectUnix(fd, abstract, polled)
}

// ownSockets is what everybody may go on making, and looking at.
func ownSockets(prey) error {
	for _, path := range []string{"/proc/self/net/dev", "/proc/self/net/route", "/proc/self/net/sockstat"} {
		if err := opens(path, os.O_RDONLY); err != nil {
			return err
		}
	}
	for _, s := range [][3]int{{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}} {
		if err := makes(s[0], s[1], s[2]); err != nil {
			return fmt.Errorf("socket %v: %w", s, err)
		}
	}
	return nil
}

// anySegment finds the segment among all by SHM_STAT_ANY, which asks for no
// permission of its own.
func anySegment(p prey) error {
	var st [512]byte
	last, _, e := unix.Syscall(unix.SYS_SHMCTL, 0, 14 /* SHM_INFO */, uintptr(unsafe.Pointer(&st)))
	if e != 0 {
		return e
	}
	err := fmt.Errorf("of %d segments it is none", last+1)
	for i := uintptr(0); i <= last; i++ {
		id, _, e := unix.Syscall(unix.SYS_SHMCTL, i, 15 /* SHM_STAT_ANY */, uintptr(unsafe.Pointer(&st)))
		if e == 0 && int(id) == p.Shm {
			return nil
		} else if e == unix.EPERM || e == unix.EACCES {
			err = e
		}
	}
	return err
}

// besiege is what the guard keeps from everybody in a VO.
var besiege = map[string]func(prey) error{
	"bpf": func(prey) error {
		var attr [16]byte
		if _, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_NEXT_ID, uintptr(unsafe.Pointer(&attr)), 16); e != 0 {
			return e
		}
		return nil
	},
	"pin: open":   func(p prey) error { return opens(p.Pins, os.O_RDONLY) },
	"pin: unlink": func(p prey) error { return os.Remove(filepath.Join(p.Pins, "of_no_use")) },
	"pin: rmdir":  func(p prey) error { return os.Remove(filepath.Join(p.Pins, "empty")) },
	"pin: rename": func(p prey) error {
		at := filepath.Join(p.Pins, "link_connect4")
		if err := os.Rename(at, at+"_moved"); err != nil {
			return err
		}
		return os.Rename(at+"_moved", at)
	},
	"lists: TCP":         func(prey) error { return opens("/proc/self/net/tcp", os.O_RDONLY) },
	"lists: unix":        func(prey) error { return opens("/proc/self/net/unix", os.O_RDONLY) },
	"lists: another's":   func(prey) error { return opens("/proc/1/net/udp", os.O_RDONLY) },
	"lists: ss":          func(prey) error { return makes(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG) },
	"cgroup: leave":      func(p prey) error { return os.WriteFile(p.Cgroup, []byte("0"), 0) },
	"socket: vsock":      func(prey) error { return makes(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	"socket: SMC":        func(prey) error { return makes(43 /* AF_SMC */, unix.SOCK_STREAM, 0) },
	"netlink: to others": func(prey) error { return makes(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK) },
	"netlink: processes": func(prey) error { return makes(unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_CONNECTOR) },
}

// makes makes a socket. A kernel that has none of the kind refuses nobody.
func makes(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == unix.EAFNOSUPPORT || err == unix.EPROTONOSUPPORT {
		return nil
	}
	unix.Close(fd)
	return err
}

// huntAll tries everything and tells what failed.
func huntAll(text string) int {
	var p prey
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	failed := map[string]string{}
	for _, room := range []map[string]func(prey) error{prowl, besiege, {"own sockets": ownSockets}} {
		for name, try := range room {
			if err := try(p); err != nil {
				failed[name] = err.Error()
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(failed)
	return 0
}

func sys(trap, a, b, c int) error {
	if _, _, e := unix.Syscall6(uintptr(trap), uintptr(a), uintptr(b), uintptr(c), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

func onPidfd(p prey, f func(int) error) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func affinity(pid int, use func(int, *unix.CPUSet) error) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return err
	}
	return use(pid, &set)
}

func opens(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func dials(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

// userns starts a process in a user namespace.
func userns() int {
	cmd := exec.Command("/proc/self/exe", "actor", "nothing", "-", "-")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
