package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const everybody = 0o666

// held is what a victim keeps open by an object of Go's: the collector, which runs
// every two minutes at least, closes what nothing names.
var held []any

// victim makes one of each thing, open to everybody as far as modes go, tells
// of them in a line, and waits to be ended.
func victim(marker, vo string) error {
	syscall.Umask(0)
	// What an attacker may send shall not end it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGURG, unix.SIGUSR1, unix.SIGHUP, unix.SIGIO)
	t := Target{PID: os.Getpid(), UID: os.Getuid(), User: os.Getenv("USER"), VO: vo, Marker: marker}
	t.Home, _ = os.UserHomeDir()
	tid := make(chan int)
	var thread func()
	thread = func() {
		runtime.LockOSThread()
		if unix.Gettid() == t.PID { // the first one, whose name is the process's
			go thread()
			select {}
		}
		tid <- unix.Gettid()
		move()
	}
	go thread()
	t.TID = <-tid
	if at, err := os.Readlink("/proc/self/fd/0"); err == nil && filepath.Dir(at) == "/dev/pts" {
		t.PTS = at
	}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	files := []string{"/tmp/" + marker, "/var/tmp/" + marker, "/dev/shm/" + marker, filepath.Join(t.Home, marker)}
	for _, path := range files {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, everybody)
		note(err)
		if err == nil {
			_, err = f.WriteString(marker)
			note(err)
			if filepath.Dir(path) == "/tmp" {
				held = append(held, f)
				note(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
			} else {
				note(f.Close())
			}
		}
	}
	t.HandleType, t.Handle = handleOf("/var/tmp/" + marker)
	note(kindsVictim(&t))
	note(handedVictim(&t))
	key := int(crc(marker))
	for _, a := range [][4]uintptr{
		{unix.SYS_SHMGET, uintptr(key), 4096, unix.IPC_CREAT | everybody},
		{unix.SYS_SEMGET, uintptr(key), 1, unix.IPC_CREAT | everybody},
		{unix.SYS_MSGGET, uintptr(key), unix.IPC_CREAT | everybody, 0},
	} {
		if _, _, e := unix.Syscall(a[0], a[1], a[2], a[3]); e != 0 {
			note(fmt.Errorf("system call %d: %w", a[0], e))
		}
	}
	_, err := mqOpen(marker, unix.O_CREAT|unix.O_RDWR)
	note(err)
	k, err := unix.AddKey("user", marker, []byte("secret"), unix.KEY_SPEC_USER_KEYRING)
	if err != nil { // some jobs' kernels have none
		k = 0
	}
	t.Key = k
	for _, kind := range []string{"unix", "unixpacket"} {
		l, err := net.Listen(kind, "@"+marker+kind)
		note(err)
		if err == nil {
			go swallow(l)
		}
	}
	datagrams, err := net.ListenPacket("unixgram", "@"+marker+"unixgram")
	note(err)
	held = append(held, datagrams)
	l, err := net.Listen("unix", "/tmp/"+marker+".sock")
	note(err)
	if err == nil {
		go swallow(l)
	}
	for network, port := range map[string]*int{"tcp4": &t.TCP4, "tcp6": &t.TCP6} {
		l, err := net.Listen(network, map[string]string{"tcp4": "0.0.0.0:0", "tcp6": "[::]:0"}[network])
		note(err)
		if err == nil {
			*port = l.Addr().(*net.TCPAddr).Port
			go swallow(l)
		}
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	note(err)
	if err == nil {
		t.UDP = u.LocalAddr().(*net.UDPAddr).Port
		go func() {
			b := make([]byte, 64)
			for {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo(b[:n], from)
			}
		}()
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	runtime.GC() // so that what is not held is missed at once
	fmt.Printf("TARGET %s\n", data)
	select {}
}

func swallow(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}

// crc makes a System V key of a marker, above what others would use.
func crc(s string) uint32 {
	n := uint32(2166136261)
	for i := range len(s) {
		n = (n ^ uint32(s[i])) * 16777619
	}
	return n&0x7fffffff | 0x40000000
}

func mqOpen(name string, flags int) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	// A queue as the kernel makes them by itself takes a tenth of what a user may have,
	// also when whoever made it has ended.
	small := struct{ flags, maxmsg, msgsize, curmsgs, _, _, _, _ int64 }{maxmsg: 1, msgsize: 64}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(p)), uintptr(flags), everybody, uintptr(unsafe.Pointer(&small)), 0, 0)
	if e != 0 {
		return -1, fmt.Errorf("mq_open: %w", e)
	}
	return int(fd), nil
}

func itoa(n int) string { return strconv.Itoa(n) }
