package process

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Wait returns nil when exactly this process has ended, at once if it has
// already, or the context's error. It holds no thread while it waits.
func (id ID) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return xos.Errorf(xos.Internal, "watching process %d: %w", id.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(id.PID))
	defer f.Close()
	if now, err := Of(id.PID); err != nil || now.Start != id.Start {
		return nil
	}
	// A pidfd becomes readable when its process ends, see pidfd_open(2).
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(set, 0)
		return err == nil && n == 1
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Running reports whether a process that is not dead has the uid, as its real,
// effective, saved or file system one.
func Running(uid uint32) (bool, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return false, xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return false, xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	want := strconv.FormatUint(uint64(uid), 10)
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/status")
		if err == nil && holds(string(data), want) {
			return true, nil
		}
	}
	return false, nil
}

// holds reads proc_pid_status(5).
func holds(status, uid string) bool {
	for line := range strings.Lines(status) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch {
		case key == "State" && len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X"):
			return false
		case key == "Uid":
			for _, f := range fields {
				if f == uid {
					return true
				}
			}
			return false
		}
	}
	return false
}
