package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What fires the hooks that judge files, sockets and IPC objects.

func openNull() error {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func accessRoot() error { return unix.Access("/", unix.X_OK) }

func statRoot() error {
	var st unix.Stat_t
	return unix.Stat("/", &st)
}

// receive hands a descriptor from this process to itself.
func receive() (act func() error, undo func(), err error) {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		fd, err := unix.PidfdGetfd(self, self, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}, func() { unix.Close(self) }, nil
}

// execute tries to become a program that is none: where nothing refuses it,
// the kernel finds no way to run it, and this process goes on.
func execute() (act func() error, undo func(), err error) {
	fd, err := unix.MemfdCreate("xos-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	undo = func() { unix.Close(fd) }
	if _, err := unix.Write(fd, []byte("\x00no program")); err != nil {
		return nil, undo, err
	}
	name := byte(0)
	argv := []*byte{&name, nil}
	return func() error {
		_, _, e := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&name)),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[1])), unix.AT_EMPTY_PATH, 0)
		return e
	}, undo, nil
}

// newSocket makes one of a family that xos-node's unit leaves it.
func newSocket() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// join is connecting to an abstract socket of one's own.
func join(kind int) (act func() error, undo func(), err error) {
	server, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	client, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		unix.Close(server)
		return nil, nil, err
	}
	undo = func() {
		unix.Close(server)
		unix.Close(client)
	}
	at := &unix.SockaddrUnix{Name: fmt.Sprintf("@xos-probe-%d-%d", os.Getpid(), server)}
	if err := unix.Bind(server, at); err != nil {
		return nil, undo, err
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(server, 1); err != nil {
			return nil, undo, err
		}
	}
	return func() error { return unix.Connect(client, at) }, undo, nil
}

func connectStream() (func() error, func(), error)   { return join(unix.SOCK_STREAM) }
func connectDatagram() (func() error, func(), error) { return join(unix.SOCK_DGRAM) }

// ipcObject makes a private IPC object, has something done to it, and removes it.
func ipcObject(get, size, flags, control uintptr, act func(id uintptr) error) (func() error, func(), error) {
	id, _, e := unix.Syscall(get, unix.IPC_PRIVATE, size, flags)
	if e == unix.ENOSYS {
		return func() error { return e }, nil, nil
	} else if e != 0 {
		return nil, nil, e
	}
	remove := func() {
		if control == unix.SYS_SEMCTL {
			unix.Syscall6(control, id, 0, unix.IPC_RMID, 0, 0, 0)
		} else {
			unix.Syscall(control, id, unix.IPC_RMID, 0)
		}
	}
	return func() error { return act(id) }, remove, nil
}

const ownerOnly = unix.IPC_CREAT | 0o600

func attachSegment() (func() error, func(), error) {
	return ipcObject(unix.SYS_SHMGET, 4096, ownerOnly, unix.SYS_SHMCTL, func(id uintptr) error {
		at, _, e := unix.Syscall(unix.SYS_SHMAT, id, 0, 0)
		if e != 0 {
			return e
		}
		return call(unix.SYS_SHMDT, at, 0, 0)
	})
}

// status is more than any of the kernel's structures for IPC_STAT.
type status [512]byte

func statSegment() (func() error, func(), error) {
	return ipcObject(unix.SYS_SHMGET, 4096, ownerOnly, unix.SYS_SHMCTL, func(id uintptr) error {
		var st status
		return call(unix.SYS_SHMCTL, id, unix.IPC_STAT, uintptr(unsafe.Pointer(&st)))
	})
}

func statSemaphore() (func() error, func(), error) {
	return ipcObject(unix.SYS_SEMGET, 1, ownerOnly, unix.SYS_SEMCTL, func(id uintptr) error {
		var st status
		if _, _, e := unix.Syscall6(unix.SYS_SEMCTL, id, 0, unix.IPC_STAT, uintptr(unsafe.Pointer(&st)), 0, 0); e != 0 {
			return e
		}
		return nil
	})
}

func statQueue() (func() error, func(), error) {
	return ipcObject(unix.SYS_MSGGET, ownerOnly, 0, unix.SYS_MSGCTL, func(id uintptr) error {
		var st status
		return call(unix.SYS_MSGCTL, id, unix.IPC_STAT, uintptr(unsafe.Pointer(&st)))
	})
}

// inScratch makes a file or directory, has something done to it, and removes
// what is left.
func inScratch(directory bool, act func(path string) error) (func() error, func(), error) {
	dir, err := os.MkdirTemp("/run", "xos-probe-")
	if err != nil {
		return nil, nil, err
	}
	undo := func() { os.RemoveAll(dir) }
	path := filepath.Join(dir, "it")
	if directory {
		err = unix.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	return func() error { return act(path) }, undo, err
}

func unlink() (func() error, func(), error) { return inScratch(false, unix.Unlink) }
func rmdir() (func() error, func(), error)  { return inScratch(true, unix.Rmdir) }

func rename() (func() error, func(), error) {
	return inScratch(false, func(path string) error { return unix.Rename(path, path+"2") })
}
