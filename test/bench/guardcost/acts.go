package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// work measures each act and prints nanoseconds by act.
func work(f flags) error {
	acts, err := prepare()
	if f.mark != "" {
		acts, err = aimed(f.mark, f.refused)
	}
	if err != nil {
		return err
	}
	found := map[string][]float64{}
	for range perBlock {
		for _, a := range acts {
			n, began := 0, time.Now()
			for time.Since(began) < f.slice {
				for range a.batch {
					if err := a.do(); err != nil {
						return fmt.Errorf("%s: %w", a.name, err)
					}
				}
				n += a.batch
			}
			found[a.name] = append(found[a.name], float64(time.Since(began).Nanoseconds())/float64(n))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// act is what is measured; batch of it are done between two looks at the clock.
type act struct {
	name  string
	batch int
	do    func() error
}

func prepare() ([]act, error) {
	file := "file-" + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		return nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	one := []byte{1}
	ping := func(out, in int) error {
		if _, err := unix.Write(out, one); err != nil {
			return err
		}
		_, err := unix.Read(in, one)
		return err
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	at := &unix.SockaddrUnix{Name: fmt.Sprintf("@guardcost-%d-%d", os.Getpid(), listener)}
	if err := unix.Bind(listener, at); err != nil {
		return nil, err
	}
	if err := unix.Listen(listener, 16); err != nil {
		return nil, err
	}
	pid := os.Getpid()
	tcp, err := newTCP()
	if err != nil {
		return nil, err
	}
	return []act{
		{"open", 50, func() error {
			fd, err := unix.Open(file, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}},
		{"stat", 50, func() error { var st unix.Stat_t; return unix.Stat(file, &st) }},
		{"kill", 100, func() error { return unix.Kill(pid, 0) }},
		{"pipe", 50, func() error { return ping(pipe[1], pipe[0]) }},
		{"datagram", 50, func() error { return ping(pair[0], pair[1]) }},
		{"connect", 10, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, at); err != nil {
				return err
			}
			peer, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			return unix.Close(peer)
		}},
		{"tcp", 10, tcp},
		{"exec", 1, func() error { return exec.Command("/proc/self/exe", "-nothing").Run() }},
	}, nil
}

// newTCP makes a listener of the worker's own, and gives what connects to it.
func newTCP() (func() error, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	to, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listening at %v", l.Addr())
	}
	return func() error {
		c, err := net.DialTCP("tcp4", nil, to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetLinger(0) // ports would be used up by connections that linger
		peer, err := l.Accept()
		if err != nil {
			return err
		}
		return peer.Close()
	}, nil
}
