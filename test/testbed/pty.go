package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openPTY opens a pseudo-terminal of the node's own, so that programs there
// find its name below their /dev/pts. The master's reads end when it is closed:
// it is not blocking, and must stay so (no Fd).
func (n *Node) openPTY() (master, terminal *os.File, err error) {
	fail := func(err error) (*os.File, *os.File, error) {
		return nil, nil, fmt.Errorf("opening a terminal in %s: %w", n.Name, err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root/dev/pts/ptmx", n.init), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(fd)
		return fail(errno)
	}
	return os.NewFile(uintptr(fd), "master"), os.NewFile(peer, "terminal"), nil
}

// resize tells a terminal, by its master, how large it is.
func resize(master *os.File, size *unix.Winsize) error {
	c, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	return errors.Join(err, failed)
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
	if err := resize(master, &unix.Winsize{Row: rows, Col: columns}); err != nil {
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
				_ = resize(master, size)
			}
		}
	}()
	// Reading our own terminal cannot be interrupted; the process ends soon
	// after this function.
	go func() { _, _ = master.ReadFrom(os.Stdin) }()
	_, _ = os.Stdout.ReadFrom(master) // ends with EIO when the session does
	return cmd.Wait()
}
