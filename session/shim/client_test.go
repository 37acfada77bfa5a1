package shim_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/shim"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

func place(t *testing.T) shim.Place {
	dir := t.TempDir()
	return shim.Place{Socket: filepath.Join(dir, "s"), Snapshots: dir, Owner: uint32(os.Geteuid())}
}

func TestCall(t *testing.T) {
	at := place(t)
	s := new(wiretest.Service)
	s.Serve(t, at.Socket)
	r, err := shim.Call(at, 1, wiretest.Fields("alice@physics"), 1000)
	want := wiretest.Fields("alice@physics", wiretest.AliceUID, wiretest.AliceUID, "Alice", "/home/xos/physics/alice", "/bin/sh")
	if diff := cmp.Diff(shim.Reply{Fields: want}, r); diff != "" || err != nil {
		t.Error(err, diff)
	}
	r, err = shim.Call(at, 1, wiretest.Fields("mallory@physics"), 1000)
	if r.Status != 1 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := shim.Call(at, 1, make([]byte, 65537), 1000); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a request that is too long: %v", err)
	}
}

// TestStranger: a server that is not whose it should be is told nothing.
func TestStranger(t *testing.T) {
	at := place(t)
	s := new(wiretest.Service)
	s.Serve(t, at.Socket)
	at.Owner++
	if _, err := shim.Call(at, 1, wiretest.Fields("alice@physics"), 1000); !errors.Is(err, syscall.EPERM) {
		t.Errorf("got %v", err)
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("it was asked %v", calls)
	}
}

func TestHostileReplies(t *testing.T) {
	good := wiretest.Message(1, 0, wiretest.Fields("x"))
	change := func(at int, b byte) []byte {
		m := append([]byte(nil), good...)
		m[at] = b
		return m
	}
	for _, c := range []struct {
		name  string
		reply []byte
		want  syscall.Errno
	}{
		{"nothing", nil, syscall.ECONNRESET},
		{"half a header", good[:9], syscall.ECONNRESET},
		{"half a body", good[:18], syscall.ECONNRESET},
		{"another magic", change(0, 0), syscall.EPROTO},
		{"another version", change(4, 2), syscall.EPROTO},
		{"a version beyond", change(5, 1), syscall.EPROTO},
		{"another op", change(6, 2), syscall.EPROTO},
		{"endless", change(11, 0xff), syscall.EPROTO},
		{"longer than it is", change(9, 1), syscall.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := place(t)
			wiretest.Listen(t, at.Socket, func(conn *net.UnixConn) {
				wiretest.ReadRequest(conn)
				conn.Write(c.reply)
			})
			r, err := shim.Call(at, 1, wiretest.Fields("alice@physics"), 1000)
			if !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v; want %v", r, err, c.want)
			}
		})
	}
}

// TestDeadlines: whatever the server does, the call ends in time.
// TestAnswerLost: a question whose answer went down with the service is asked of
// its successor at the same socket, once; what opens or closes is not.
func TestAnswerLost(t *testing.T) {
	const account, authenticate, open, close = 8, 7, 9, 10 // XOS_OP_PAM_*
	for _, c := range []struct {
		op, lost, asked int
		want            error
	}{
		{1, 1, 2, nil},
		{1, 2, 2, syscall.ECONNRESET},
		{account, 1, 2, nil},
		{authenticate, 1, 1, syscall.ECONNRESET},
		{open, 1, 1, syscall.ECONNRESET},
		{close, 1, 1, syscall.ECONNRESET},
	} {
		at := place(t)
		var asked atomic.Int32
		wiretest.Listen(t, at.Socket, func(conn *net.UnixConn) {
			wiretest.ReadRequest(conn)
			if int(asked.Add(1)) > c.lost {
				conn.Write(wiretest.Message(uint16(c.op), 0, wiretest.Fields("x")))
			}
		})
		if r, err := shim.Call(at, c.op, wiretest.Fields("alice@physics"), 1000); !errors.Is(err, c.want) || int(asked.Load()) != c.asked {
			t.Errorf("op %d, %d lost: asked %d times, want %d; %+v, %v", c.op, c.lost, asked.Load(), c.asked, r, err)
		}
	}
}

func TestDeadlines(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve func(*net.UnixConn)
	}{
		{"says nothing", func(c *net.UnixConn) { c.Read(make([]byte, 1<<17)); c.Read(make([]byte, 1)) }},
		{"drips", func(c *net.UnixConn) {
			for range time.Tick(20 * time.Millisecond) {
				if _, err := c.Write([]byte{0x58}); err != nil {
					return
				}
			}
		}},
		{"never reads", func(c *net.UnixConn) { c.CloseWrite() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := place(t)
			wiretest.Listen(t, at.Socket, c.serve)
			start := time.Now()
			_, err := shim.Call(at, 1, wiretest.Fields("alice@physics"), 300)
			if d := time.Since(start); err == nil || d > 2*time.Second {
				t.Errorf("%v after %v", err, d)
			}
		})
	}
}

// TestFullQueue: a server that does not even accept costs a fifth of a second.
func TestFullQueue(t *testing.T) {
	at := place(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: at.Socket}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", at.Socket) // the one that the queue holds
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	_, err = shim.Call(at, 1, wiretest.Fields("alice@physics"), 20000)
	if d := time.Since(start); err == nil || d < 150*time.Millisecond || d > 2*time.Second {
		t.Errorf("%v after %v", err, d)
	}
}

// TestDescriptors: one that comes along is kept, and all others are closed.
func TestDescriptors(t *testing.T) {
	at := place(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Listen(t, at.Socket, func(c *net.UnixConn) {
		wiretest.ReadRequest(c)
		rights := unix.UnixRights(int(w.Fd()), int(w.Fd()), int(w.Fd()))
		c.WriteMsgUnix(wiretest.Message(9, 0, nil), rights, nil)
	})
	reply, err := shim.Call(at, 9, nil, 1000)
	if err != nil || reply.File == nil || reply.File.Fd() < 3 {
		t.Fatalf("got %+v, %v", reply, err)
	}
	if flags, _ := unix.FcntlInt(reply.File.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("the descriptor would be inherited")
	}
	reply.File.Write([]byte("x"))
	reply.File.Close()
	w.Close()
	b := make([]byte, 2)
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	for n := 0; ; n++ { // its end is seen when nobody has a copy any more
		if _, err := r.Read(b); err != nil {
			if n != 1 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %d bytes: %v", n, err)
			}
			break
		}
	}
}
