// Package uring has the kernel do one thing through io_uring, on a thread that it
// makes: a worker, or one that polls the ring. Tests ask whether such threads are
// whose they work for.
package uring

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/io_uring.h.
const (
	uringSQPoll  = 1 << 1 // IORING_SETUP_SQPOLL
	uringAsync   = 1 << 4 // IOSQE_ASYNC: a worker, at once
	uringEvents  = 1 << 0 // IORING_ENTER_GETEVENTS
	uringWakeup  = 1 << 1 // IORING_ENTER_SQ_WAKEUP
	uringConnect = 16     // IORING_OP_CONNECT
	uringOpen    = 18     // IORING_OP_OPENAT
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct{ head, tail, mask, entries, flags, dropped, array, _ uint32 }
	_                                                    uint64
	cq                                                   struct{ head, tail, mask, entries, overflow, cqes, flags, _ uint32 }
	_                                                    uint64
}

// sqe is the part of struct io_uring_sqe that is used here.
type sqe struct {
	op, flags byte
	fd        int32
	off, addr uint64
	len       uint32
}

// do has one thing done by a ring, and gives what came of it. Linux 6.1 cancels it if
// signals come while it makes the thread, as the Go runtime sends them.
func do(polled bool, e sqe) error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	var were unix.Sigset_t
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &were); err != nil {
		return fmt.Errorf("masking signals: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &were, nil)
	p := uringParams{idle: 10} // ms; it is woken anyway
	if polled {
		p.flags = uringSQPoll
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_setup: %w", errno)
	}
	defer unix.Close(int(fd))
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+16*p.cqEntries)
	ring, err := unix.Mmap(int(fd), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("the ring: %w", err)
	}
	defer unix.Munmap(ring)
	entries, err := unix.Mmap(int(fd), 0x10000000, int(64*p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("its entries: %w", err)
	}
	defer unix.Munmap(entries)
	entries[0], entries[1] = e.op, e.flags
	binary.NativeEndian.PutUint32(entries[4:], uint32(e.fd))
	binary.NativeEndian.PutUint64(entries[8:], e.off)
	binary.NativeEndian.PutUint64(entries[16:], e.addr)
	binary.NativeEndian.PutUint32(entries[24:], e.len)
	binary.NativeEndian.PutUint32(ring[p.sq.array:], 0)
	atomic.AddUint32((*uint32)(unsafe.Pointer(&ring[p.sq.tail])), 1)
	flags := uintptr(uringEvents)
	if polled {
		flags |= uringWakeup
	}
	// The kernel's own notices end the waiting as signals do, of a call that has
	// submitted without an error.
	for submit := uintptr(1); atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[p.cq.tail]))) == 0; {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, submit, 1, flags, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submit -= min(n, submit)
		}
	}
	res := int32(binary.NativeEndian.Uint32(ring[p.cq.cqes+8:]))
	if res < 0 {
		return unix.Errno(-res)
	}
	if e.op == uringOpen {
		unix.Close(int(res))
	}
	return nil
}

// Open opens a file to read, and closes it.
func Open(path string, polled bool) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(name)
	return do(polled, sqe{op: uringOpen, flags: uringAsync, fd: unix.AT_FDCWD, addr: uint64(uintptr(unsafe.Pointer(name)))})
}

// ConnectUnix connects a socket to an abstract name, which begins with "@".
func ConnectUnix(fd int, abstract string, polled bool) error {
	at := &unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	for i := 1; i < len(abstract); i++ { // its "@" stands for a NUL
		at.Path[i] = int8(abstract[i])
	}
	return connect(fd, unsafe.Pointer(at), 2+len(abstract), polled)
}

// ConnectTCP connects a socket to a port of 127.0.0.1.
func ConnectTCP(fd, port int, polled bool) error {
	at := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, 1}}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&at.Port))[:], uint16(port))
	return connect(fd, unsafe.Pointer(at), unix.SizeofSockaddrInet4, polled)
}

func connect(fd int, at unsafe.Pointer, size int, polled bool) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(at)
	return do(polled, sqe{op: uringConnect, flags: uringAsync, fd: int32(fd), addr: uint64(uintptr(at)), off: uint64(size)})
}
