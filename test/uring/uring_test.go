package uring

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/need"
)

// TestSignals: the answer is waited for while signals come, as the Go runtime
// sends them to threads of its own.
func TestSignals(t *testing.T) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		need.Missing(t, "io_uring", "the kernel has it off: sysctl kernel.io_uring_disabled")
	}
	if errno == 0 {
		unix.Close(int(fd))
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, done, ended := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				unix.Tgkill(unix.Getpid(), self, unix.SIGURG)
			}
		}
	}()
	defer func() { close(done); <-ended }()
	for i := range 50 {
		for _, polled := range []bool{false, true} {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			err = ConnectTCP(s, l.Addr().(*net.TCPAddr).Port, polled)
			unix.Close(s)
			if err != nil {
				t.Fatalf("connection %d, polled %v: %v", i, polled, err)
			}
		}
	}
}
