package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/uring"
)

// Of linux headers that package unix has not.
const (
	afSMC        = 43
	procComm     = 0x200 // PROC_EVENT_COMM, linux/cn_proc.h
	localMachine = 1     // VMADDR_CID_LOCAL

	connectTimeout = 6 // SO_VM_SOCKETS_CONNECT_TIMEOUT, linux/vm_sockets.h
)

// kinds is talking by sockets that are neither IP's nor unix's, and io_uring.
var kinds = map[string]func(Target) error{
	"vsock":                   func(t Target) error { return vsock(t.Vsock) },
	"SMC: by TCP":             func(t Target) error { return smcByTCP(t) },
	"netlink: to another":     func(t Target) error { return usersock(t) },
	"netlink: process events": func(t Target) error { return processEvents(t) },
	"netlink: taskstats":      func(t Target) error { return taskstats(t) },
	"/proc/net/netlink":       func(t Target) error { return read("/proc/net/netlink", fmt.Sprintf(" %d ", t.Route)) },
	"io_uring: TCP":           func(t Target) error { return byRing(t, false) },
	"io_uring: TCP, polled":   func(t Target) error { return byRing(t, true) },
}

// kindsVictim listens by each kind that this kernel and the guard let it have: a
// number that stays 0 is of one that there is not.
func kindsVictim(t *Target) error {
	if fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		if port, err := bound(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}); err == nil && unix.Listen(fd, 8) == nil {
			t.Vsock = port
			go echo(fd)
		}
	}
	if fd, err := unix.Socket(afSMC, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		if port, err := bound(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil && unix.Listen(fd, 8) == nil {
			t.SMC = port
		}
	}
	if fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_USERSOCK); err == nil {
		if port, err := bound(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
			t.Usersock = port
			go func() {
				b := make([]byte, 64)
				for {
					n, from, err := unix.Recvfrom(fd, b, 0)
					if err != nil {
						return
					}
					unix.Sendto(fd, b[:n], 0, from)
				}
			}()
		}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		t.Route, err = bound(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	return err
}

// bound binds a socket and gives the port that it has then.
func bound(fd int, at unix.Sockaddr) (int, error) {
	if err := unix.Bind(fd, at); err != nil {
		return 0, err
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch a := got.(type) {
	case *unix.SockaddrVM:
		return int(a.Port), nil
	case *unix.SockaddrInet4:
		return a.Port, nil
	case *unix.SockaddrNetlink:
		return int(a.Pid), nil
	}
	// An address of AF_SMC is one of IPv4, which package unix does not know.
	var raw unix.RawSockaddrInet4
	size := uint32(unsafe.Sizeof(raw))
	if _, _, e := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size))); e != 0 {
		return 0, e
	}
	return int(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:])), nil
}

// echo answers each connection's first bytes.
func echo(listener int) {
	for {
		fd, _, err := unix.Accept(listener)
		if err != nil {
			return
		}
		go func() {
			defer unix.Close(fd)
			b := make([]byte, 64)
			if n, err := unix.Read(fd, b); err == nil {
				unix.Write(fd, b[:n])
			}
		}()
	}
}

// within bounds what a socket waits for.
func within(fd int, d time.Duration) {
	tv := unix.NsecToTimeval(int64(d))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
}

// vsock talks to a port of this machine. It does not wait in connect, which a
// signal would end.
func vsock(port int) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if port == 0 {
		return errors.New("she has none")
	}
	// A kernel without a loopback of vsock lets one wait for this long.
	second := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(fd, unix.AF_VSOCK, connectTimeout, &second); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: localMachine, Port: uint32(port)}); err != nil && err != unix.EINPROGRESS {
		return err
	}
	if err := ready(fd, unix.POLLOUT); err != nil {
		return err
	}
	if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
		return errors.Join(err, unix.Errno(e))
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	if err := ready(fd, unix.POLLIN); err != nil {
		return err
	}
	n, err := unix.Read(fd, make([]byte, 8))
	if err == nil && n == 0 {
		err = errors.New("it is closed")
	}
	return err
}

// ready waits until a descriptor is, for 3 s.
func ready(fd int, what int16) error {
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: what}}, 3000)
		if n == 1 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	return errors.New("nothing comes")
}

// smcByTCP connects to the socket that the kernel made below one of SMC.
func smcByTCP(t Target) error {
	if t.SMC == 0 {
		return errors.New("she has none")
	}
	return dial("tcp4", "127.0.0.1:"+itoa(t.SMC))
}

func usersock(t Target) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_USERSOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if t.Usersock == 0 {
		return errors.New("she has none")
	}
	within(fd, 3*time.Second)
	if err := unix.Sendto(fd, message(0x10, nil), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: uint32(t.Usersock)}); err != nil {
		return err
	}
	_, err = receive(fd, make([]byte, 64))
	return err
}

// receive goes on after signals, which end a call that has a bound.
func receive(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// message is one of netlink's.
func message(kind uint16, body []byte) []byte {
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST)
	m = binary.NativeEndian.AppendUint32(m, 1)
	m = binary.NativeEndian.AppendUint32(m, 0)
	return append(m, body...)
}

// processEvents listens to what the kernel tells of all processes until the
// victim's name changes.
func processEvents(t Target) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 /* CN_IDX_PROC */}); err != nil {
		return err
	}
	body := []byte{}
	for _, word := range []uint32{1, 1, 0, 0} { // index and value of CN_PROC, sequence, acknowledged
		body = binary.NativeEndian.AppendUint32(body, word)
	}
	body = binary.NativeEndian.AppendUint32(body, 4)                            // length, flags
	body = binary.NativeEndian.AppendUint32(body, 1 /* PROC_CN_MCAST_LISTEN */) // the operation
	if err := unix.Send(fd, message(unix.NLMSG_DONE, body), 0); err != nil {
		return err
	}
	within(fd, time.Second)
	b := make([]byte, 512)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		n, err := receive(fd, b)
		if err != nil {
			return err
		}
		// After the headers of netlink and of the connector: what, cpu, time, pid, tgid.
		if e := b[unix.SizeofNlMsghdr+20 : n]; len(e) >= 24 && binary.NativeEndian.Uint32(e) == procComm && int(binary.NativeEndian.Uint32(e[20:])) == t.PID {
			return nil
		}
	}
	return errors.New("nothing is told of her")
}

// taskstats asks what a process used, by its number alone.
func taskstats(t Target) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	within(fd, 3*time.Second)
	family, err := generic(fd, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, unix.CTRL_ATTR_FAMILY_NAME, []byte(unix.TASKSTATS_GENL_NAME+"\x00"), unix.CTRL_ATTR_FAMILY_ID)
	if err != nil {
		return err
	}
	_, err = generic(fd, binary.NativeEndian.Uint16(family), unix.TASKSTATS_CMD_GET, unix.TASKSTATS_CMD_ATTR_PID, binary.NativeEndian.AppendUint32(nil, uint32(t.PID)), unix.TASKSTATS_TYPE_AGGR_PID)
	return err
}

// generic asks a family of generic netlink with one attribute, and gives one of the
// answer's.
func generic(fd int, family uint16, command byte, attribute uint16, value []byte, wanted uint16) ([]byte, error) {
	body := []byte{command, 1, 0, 0}
	body = binary.NativeEndian.AppendUint16(body, uint16(4+len(value)))
	body = binary.NativeEndian.AppendUint16(body, attribute)
	body = append(body, value...)
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	if err := unix.Sendto(fd, message(family, body), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	b := make([]byte, 8192)
	n, err := receive(fd, b)
	if err != nil {
		return nil, err
	}
	if n >= 20 && binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
		return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))
	}
	for b = b[20:n]; len(b) >= 4; {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			break
		}
		if kind == wanted {
			return b[4:size], nil
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil, errors.New("the answer has it not")
}

// byRing has a thread of the kernel's connect.
func byRing(t Target, polled bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := uring.ConnectTCP(fd, t.TCP4, polled); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	return ready(fd, unix.POLLIN)
}
