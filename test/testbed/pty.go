package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openPTY opens a pseudo-terminal of the node's own, so that programs there
// find its name below their /dev/pts.
func (n *Node) openPTY() (master, terminal *os.File, err error) {
	master, err = os.OpenFile(fmt.Sprintf("/proc/%d/root/dev/pts/ptmx", n.init), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	var fd uintptr
	if err == nil {
		var errno unix.Errno
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		master.Close()
		return nil, nil, os.NewSyscallError("opening a terminal in "+n.Name, err)
	}
	return master, os.NewFile(fd, "terminal"), nil
}

// StartTerminal starts a program as the leader of a session with a terminal of
// the node's, and returns the terminal's other end. When ctx ends, the
// session's leader group is killed.
func (n *Node) StartTerminal(ctx context.Context, rows, columns uint16, argv ...string) (*exec.Cmd, *os.File, error) {
	master, terminal, err := n.openPTY()
	if err != nil {
		return nil, nil, err
	}
	defer terminal.Close()
	size := &unix.Winsize{Row: rows, Col: columns}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		master.Close()
		return nil, nil, err
	}
	cmd := n.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := n.start(cmd); err != nil {
		master.Close()
		return nil, nil, err
	}
	return cmd, master, nil
}

// Interactive runs a program in the node on this process's own terminal and
// returns how it ended.
func (n *Node) Interactive(ctx context.Context, argv ...string) error {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		cmd := n.Command(ctx, argv...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := n.start(cmd); err != nil {
			return err
		}
		return cmd.Wait()
	}
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return err
	}
	argv = append([]string{"env", "TERM=" + os.Getenv("TERM")}, argv...)
	cmd, master, err := n.StartTerminal(ctx, uint16(rows), uint16(columns), argv...)
	if err != nil {
		return err
	}
	defer master.Close()
	before, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	defer term.Restore(fd, before)

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer close(resized)
	defer signal.Stop(resized)
	go func() {
		for range resized {
			if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
				_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, size)
			}
		}
	}()
	// Reading our own terminal cannot be interrupted; the process ends soon
	// after this function.
	go func() { _, _ = master.ReadFrom(os.Stdin) }()
	_, _ = os.Stdout.ReadFrom(master) // ends with EIO when the session does
	return cmd.Wait()
}
