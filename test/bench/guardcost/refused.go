package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
)

// The other VO, and whose process of it is tried on.
const (
	otherUser = user + 1
	otherVO   = "other"
)

// mark is what another VO's process has: itself, a file, a program, and sockets.
type mark struct {
	PID                    int
	File, Program          string
	Stream, Datagram, Port string
}

// stand is that process: it has what a mark says, prints it, and takes what comes until
// its input ends.
func stand() error {
	pid := os.Getpid()
	m := mark{PID: pid, File: "file", Program: "program", Stream: fmt.Sprintf("@guardcost-stream-%d", pid), Datagram: fmt.Sprintf("@guardcost-datagram-%d", pid)}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(m.File, []byte("x"), 0o644), os.WriteFile(m.Program, program, 0o755)); err != nil {
		return err
	}
	stream, err := net.Listen("unix", m.Stream)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	datagrams, err := net.ListenPacket("unixgram", m.Datagram)
	if err != nil {
		return err
	}
	m.Port = tcp.Addr().String()
	for _, l := range []net.Listener{stream, tcp} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	go func() {
		for into := make([]byte, 1); err == nil; {
			_, _, err = datagrams.ReadFrom(into)
		}
	}()
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// acts are what a worker tries, which nothing but the guard keeps from it: only root in
// a job's cgroup may else signal others' processes.
func (m mark) acts(root bool) ([]act, error) {
	if root {
		return []act{{"kill", 50, func() error { return unix.Kill(m.PID, 0) }}}, nil
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	at, to := &unix.SockaddrUnix{Name: m.Stream}, &unix.SockaddrUnix{Name: m.Datagram}
	return []act{
		{"open", 50, func() error {
			fd, err := unix.Open(m.File, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}},
		{"stat", 50, func() error { var st unix.Stat_t; return unix.Stat(m.File, &st) }},
		{"datagram", 50, func() error { return unix.Sendto(socket, []byte{1}, 0, to) }},
		{"connect", 10, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, at)
		}},
		{"tcp", 10, func() error {
			c, err := net.Dial("tcp4", m.Port)
			if err != nil {
				return err
			}
			_ = c.(*net.TCPConn).SetLinger(0) // ports would be used up by connections that linger
			return c.Close()
		}},
		{"exec", 1, func() error { return exec.Command(m.Program, "-nothing").Run() }},
	}, nil
}

// aimed gives the acts of a worker that was told of a mark. Each has to be refused, or
// to work, each time.
func aimed(text string, refused bool) ([]act, error) {
	var m mark
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, err
	}
	acts, err := m.acts(os.Getuid() == 0)
	for i, a := range acts {
		acts[i].do = func() error { return a.must(refused) }
	}
	return acts, err
}

// must does the act, which has to be refused or to work.
func (a act) must(refused bool) error {
	err := a.do()
	switch {
	case !refused:
		return err
	case err == nil:
		return errors.New("nothing refuses it")
	case errors.Is(err, os.ErrPermission):
		return nil
	}
	return err
}

// refusals measures what is refused under one arm, or what the same costs where it is not.
func (s stage) refusals(a arm, f flags, cgroup *os.File, all figures) (err error) {
	m, end, err := s.stranger()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	args := []string{"-worker", "-slice", f.slice.String(), "-mark", string(text)}
	if a == guarded || a == audited {
		args = append(args, "-refused")
	}
	for _, uid := range []uint32{user, 0} {
		attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
		if err := s.measure("refused", a, attr, all, "ns", args...); err != nil {
			return err
		}
	}
	return nil
}

// stranger starts the other VO's process, in a job's cgroup of its own.
func (s stage) stranger() (m mark, end func() error, err error) {
	cgroup, err := os.Open(filepath.Join(s.cfg.CgroupRoot, s.cfg.Subtree, "vo-"+otherVO, "job-bench"))
	if err != nil {
		return m, nil, err
	}
	defer cgroup.Close()
	home := s.home(otherVO)
	if err := errors.Join(os.MkdirAll(home, 0o755), os.Chown(home, int(otherUser), int(otherUser))); err != nil {
		return m, nil, err
	}
	cmd := exec.Command(s.worker(), "-stand")
	cmd.Dir, cmd.Stderr = home, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		return m, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return m, nil, err
	}
	if err := cmd.Start(); err != nil {
		return m, nil, err
	}
	end = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	if err := json.NewDecoder(out).Decode(&m); err != nil {
		return m, nil, errors.Join(fmt.Errorf("the other VO's process does not begin: %w", err), end())
	}
	// Files lie where anybody may look: it is they that are refused, not their directory.
	for _, file := range []*string{&m.File, &m.Program} {
		at := filepath.Join(s.dir, otherVO+"-"+*file)
		if err := os.Rename(filepath.Join(home, *file), at); err != nil {
			return m, nil, errors.Join(err, end())
		}
		*file = at
	}
	return m, end, nil
}

// admitOther has the guard know the other VO.
func (s stage) admitOther(g nodeguard.Guard) error {
	other := xos.Account{User: "bench", VO: otherVO}
	if err := g.Login(context.Background(), other, otherUser); err != nil {
		return err
	}
	_, err := g.JobCgroup(context.Background(), other, "bench")
	return err
}
