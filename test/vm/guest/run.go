package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/vm/wire"
)

// environment is what commands see, like a root login.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash",
	"LANG=C.UTF-8", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive",
}

// run answers one request: a command from its start to its end. When whoever
// asked goes away, the command's process group is killed.
func run(w http.ResponseWriter, r *http.Request) {
	spec, err := wire.DecodeSpec(r.Header.Get(wire.Header))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	frames := wire.NewWriter(w, func() { _ = flusher.Flush() })
	var exit wire.Exit
	if spec.Rows > 0 {
		exit = onTerminal(r.Context(), spec, r.Body, frames)
	} else {
		exit = command(r.Context(), spec, r.Body, frames)
	}
	data, err := json.Marshal(exit)
	if err == nil {
		_ = frames.Frame(wire.End, data)
	}
}

func prepare(ctx context.Context, spec wire.Spec) *exec.Cmd {
	cmd := exec.CommandContext(ctx, spec.Argv[0], spec.Argv[1:]...)
	cmd.Env, cmd.Dir = environment, "/root"
	if len(spec.Env) > 0 {
		cmd.Env = spec.Env
	}
	if spec.Dir != "" {
		cmd.Dir = spec.Dir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

func command(ctx context.Context, spec wire.Spec, stdin io.Reader, frames *wire.Writer) wire.Exit {
	cmd := prepare(ctx, spec)
	cmd.Stdout, cmd.Stderr = frames.Stream(wire.Stdout), frames.Stream(wire.Stderr)
	// Not cmd.Stdin: Wait would wait for input that nobody reads any more.
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return ended(err)
	}
	go func() {
		_, _ = io.Copy(in, stdin)
		in.Close()
	}()
	return ended(cmd.Wait())
}

func onTerminal(ctx context.Context, spec wire.Spec, stdin io.Reader, frames *wire.Writer) wire.Exit {
	master, terminal, err := openPTY(spec.Rows, spec.Columns)
	if err != nil {
		return ended(err)
	}
	defer master.Close()
	cmd := prepare(ctx, spec)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	terminal.Close()
	if err != nil {
		return ended(err)
	}
	go func() { _, _ = io.Copy(master, stdin) }()
	shown := make(chan struct{})
	go func() {
		_, _ = io.Copy(frames.Stream(wire.Stdout), master)
		close(shown)
	}()
	err = cmd.Wait()
	// What is shown by now is read; a background process may hold the terminal.
	select {
	case <-shown:
	case <-time.After(time.Second):
		master.Close()
		<-shown
	}
	return ended(err)
}

func openPTY(rows, columns uint16) (master, terminal *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(fd)
		return nil, nil, errno
	}
	return os.NewFile(uintptr(fd), "master"), os.NewFile(peer, "terminal"), nil
}

// ended tells how a command ended from what Start or Wait said.
func ended(err error) wire.Exit {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return wire.Exit{}
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return wire.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
		}
		return wire.Exit{Code: status.ExitStatus()}
	}
	return wire.Exit{Code: 127, Error: err.Error()}
}
