package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// forwarded are the signals that a job gets from its stand-in. STOP and KILL
// nobody can catch: the machine's session service sees them.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT}

// catchSignals catches them, but those that were ignored when this process
// began stay so: nohup, and what a shell starts in the background.
func catchSignals() <-chan os.Signal {
	ch := make(chan os.Signal, 64)
	for _, s := range forwarded {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
	return ch
}

// forward passes signals on.
func (s *stand) forward(caught <-chan os.Signal) {
	for sig := range caught {
		n := sig.(syscall.Signal)
		s.mu.Lock()
		job := s.job
		s.mu.Unlock()
		switch {
		case n == unix.SIGWINCH:
			s.resize()
		case n == unix.SIGTSTP:
			if job != nil {
				s.deliver(int32(unix.SIGSTOP), time.Second)
			}
			stopSelf()
			if job != nil {
				s.deliver(int32(unix.SIGCONT), 0)
			}
		case n == unix.SIGCONT:
			if job != nil {
				s.deliver(int32(n), 0)
			}
		case job == nil: // not submitted yet, as far as is known here
			dieOf(n)
		case inForeground() && (n == unix.SIGINT || n == unix.SIGQUIT || n == unix.SIGHUP):
			// From the terminal, most likely: such a signal is for the whole
			// process group.
			s.deliver(-int32(n), 0)
		default:
			s.deliver(int32(n), 0)
		}
	}
}

// deliver queues a signal for the job and waits, if asked to, until it took
// effect.
func (s *stand) deliver(sig int32, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.signals) >= 50 {
		return // it does not take any
	}
	s.signals = append(s.signals, sig)
	s.pass(&xosv1.ToJob{Signal: sig})
	if wait == 0 {
		return
	}
	late := false
	t := time.AfterFunc(wait, func() {
		s.mu.Lock()
		late = true
		s.changed.Broadcast()
		s.mu.Unlock()
	})
	defer t.Stop()
	for len(s.signals) > 0 && !late {
		s.changed.Wait()
	}
}

// stopSelf stops this process as TSTP does by default, and returns when it was
// continued, or at once where the kernel does not stop it (an orphaned process
// group).
func stopSelf() {
	old := setDefault(unix.SIGTSTP)
	unix.Kill(os.Getpid(), unix.SIGTSTP)
	time.Sleep(50 * time.Millisecond) // it is delivered to some thread, soon
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTSTP), uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
}

// sigaction is the kernel's struct, whose layout differs between
// architectures; all zero it means SIG_DFL, no flags, no mask.
type sigaction [64]byte

// setDefault gives a signal its default action, past Go's own handler, which
// stays after signal.Reset; it gives the action before.
func setDefault(sig unix.Signal) (old sigaction) {
	var def sigaction
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&def)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return old
}

func (s *stand) size() (rows, columns uint32) {
	if !s.request.Tty {
		return 0, 0
	}
	w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return uint32(w.Row), uint32(w.Col)
}

func (s *stand) resize() {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, columns := s.size()
	if rows > 0 {
		s.pass(&xosv1.ToJob{Rows: rows, Columns: columns})
	} else if s.job != nil && !s.request.Tty {
		s.signals = append(s.signals, int32(unix.SIGWINCH))
		s.pass(&xosv1.ToJob{Signal: int32(unix.SIGWINCH)})
	}
}

// inForeground reports whether this process is in the foreground of its
// terminal.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// dieOf ends this process by a signal, as if that had been sent to it with its
// default action. It returns only where that is impossible.
func dieOf(sig unix.Signal) {
	// Not for this process to leave an image of.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	setDefault(sig)
	unix.Kill(os.Getpid(), sig)
	time.Sleep(time.Second)
}
