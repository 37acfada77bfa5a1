package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is one of the machine's that the victim opens again and again, and
// nobody else.
const program = "/usr/bin/yes"

// handed is what is watched, held, or handed over.
var handed = map[string]func(Target) error{
	"fanotify: file":        func(t Target) error { return fanotifies("/var/tmp/"+t.Marker, false) },
	"fanotify: home":        func(t Target) error { return fanotifies(t.Home, false) },
	"fanotify: programs":    func(t Target) error { return fanotifies(program, true) },
	"fanotify: file system": func(t Target) error { return fanotifyAll("/var/tmp") },
	"inotify: programs":     func(t Target) error { return inotifies(program) },
	"inotify: /proc/PID":    func(t Target) error { return inotify(fmt.Sprintf("/proc/%d", t.PID)) },
	"abstract: SCM_RIGHTS":  func(t Target) error { return givenMemory(t) },
	"/proc: PID/fd: memory": func(t Target) error { return read(fmt.Sprintf("/proc/%d/fd/%d", t.PID, t.Memory), t.Marker) },
	"/var/tmp: lease":       func(t Target) error { return lease("/var/tmp/" + t.Marker) },
	"/var/tmp: hardlink":    func(t Target) error { return hardlink("/var/tmp/" + t.Marker) },
	"userns: by handle":     func(t Target) error { return asRoot("handle", t) },
	"key: link":             func(t Target) error { return keyLink(t) },
	"process_madvise":       func(t Target) error { return byPidfd(t, advise) },
	"setns by pidfd":        func(t Target) error { return byPidfd(t, func(fd int) error { return setnsAll(fd) }) },
	"cgroup: clone into":    func(t Target) error { return cloneInto(t) },
	"/proc/timer_list":      func(t Target) error { return read("/proc/timer_list", "Timer List") },
	"binfmt_misc":           func(t Target) error { return writable("/proc/sys/fs/binfmt_misc/register") },
}

// handedVictim hands a memory of its own to whoever connects, and opens a program and
// changes its name ten times a second.
func handedVictim(t *Target) error {
	fd, err := unix.MemfdCreate("xos-victim", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(t.Marker)); err != nil {
		return err
	}
	t.Memory = fd
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + t.Marker + "rights", Net: "unix"})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil)
			c.Close()
		}
	}()
	return nil
}

// move is done by a thread of the victim's, over and over.
func move() {
	pause := unix.NsecToTimespec(int64(100 * time.Millisecond))
	for i := 0; ; i++ {
		open(program)
		name := [16]byte{'x', 'o', 's', '0' + byte(i%10)}
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0)
		unix.Nanosleep(&pause, nil) // not time.Sleep, for which other threads would wake, too
	}
}

// fanotifies marks one file, as everybody may since Linux 5.13, and may wait for an
// event.
func fanotifies(path string, wait bool) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN, unix.AT_FDCWD, path); err != nil || !wait {
		return err
	}
	return ready(fd, unix.POLLIN)
}

// fanotifyAll marks a whole file system.
func fanotifyAll(path string) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, unix.AT_FDCWD, path)
}

func inotifies(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		return err
	}
	return ready(fd, unix.POLLIN)
}

func givenMemory(t Target) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "@" + t.Marker + "rights", Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	oob := make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 8), oob)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return fmt.Errorf("nothing is given (%w)", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("no descriptor is given (%w)", err)
	}
	f := os.NewFile(uintptr(fds[0]), "memory")
	defer f.Close()
	b := make([]byte, len(t.Marker))
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if string(b) != t.Marker {
		return fmt.Errorf("it has %q", b)
	}
	return nil
}

// lease would be asked before others open the file.
func lease(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err
}

func hardlink(path string) error {
	to := fmt.Sprint(path, "-", os.Getpid())
	err := os.Link(path, to)
	os.Remove(to)
	return err
}

// byHandleOf opens the victim's file by what the kernel names it by, through each
// mount that shows such files.
func byHandleOf(t Target) error {
	if len(t.Handle) == 0 {
		return errors.New("she told none")
	}
	var err error
	for _, at := range []string{"/var/tmp", "/tmp", "/", "/etc", "/usr"} {
		dir, e := os.Open(at)
		if e != nil {
			continue
		}
		fd, e := unix.OpenByHandleAt(int(dir.Fd()), unix.NewFileHandle(t.HandleType, t.Handle), unix.O_RDONLY)
		dir.Close()
		if e == nil {
			e = read(fmt.Sprint("/proc/self/fd/", fd), t.Marker)
			unix.Close(fd)
		}
		if e == nil {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w", at, e))
	}
	return err
}

func keyLink(t Target) error {
	_, err := unix.KeyctlInt(unix.KEYCTL_LINK, t.Key, unix.KEY_SPEC_PROCESS_KEYRING, 0, 0)
	return err
}

// advise has the kernel page out some of another's memory.
func advise(fd int) error {
	v := [2]uintptr{0x400000, 4096} // struct iovec: where Go programs without relocation begin
	return raw(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1, unix.MADV_COLD, 0)
}

func setnsAll(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNS) }

// cloneInto begins a process in the victim's cgroup.
func cloneInto(t Target) error {
	fd, err := unix.Open(fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice", t.UID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	return cmd.Run()
}

func writable(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}

// handleOf is what the kernel names a file by.
func handleOf(path string) (kind int32, handle []byte) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return 0, nil
	}
	return h.Type(), h.Bytes()
}
