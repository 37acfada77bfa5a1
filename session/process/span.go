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

// Span is a range of uids.
type Span struct{ First, Last uint32 }

// Running reports whether a process that is not dead has one of the uids, as
// its real, effective, saved or file system one.
func (s Span) Running() (bool, error) {
	found := false
	err := s.each(func(int) bool { found = true; return false })
	return found, err
}

// Kill ends every process that Running is about, and says whether there was
// one. Passes are repeated until one finds none: a process may fork meanwhile.
func (s Span) Kill(ctx context.Context) (killed bool, err error) {
	if s.First < 1000 {
		return false, xos.Errorf(xos.Invalid, "uid %d is no grid user's", s.First)
	}
	for {
		n := 0
		err := s.each(func(pid int) bool {
			// The descriptor names one process, whose uids are looked at again.
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return true
			}
			defer unix.Close(fd)
			if data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status"); err == nil && s.holds(string(data)) {
				n++
				unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			return true
		})
		if err != nil || n == 0 {
			return killed, err
		}
		killed = true
		select {
		case <-ctx.Done():
			return true, xos.Errorf(xos.Unavailable, "%d processes of uids %d to %d do not end: %w", n, s.First, s.Last, ctx.Err())
		case <-time.After(5 * time.Millisecond): // while they die
		}
	}
}

// each calls f with each process that has one of the uids, until f says no.
func (s Span) each(f func(pid int) bool) error {
	proc, err := os.Open("/proc")
	if err != nil {
		return xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/status")
		if err == nil && s.holds(string(data)) && !f(pid) {
			return nil
		}
	}
	return nil
}

// holds reads proc_pid_status(5).
func (s Span) holds(status string) bool {
	for line := range strings.Lines(status) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch {
		case key == "State" && len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X"):
			return false
		case key == "Uid":
			for _, f := range fields {
				if uid, err := strconv.ParseUint(f, 10, 32); err == nil && uint32(uid) >= s.First && uint32(uid) <= s.Last {
					return true
				}
			}
			return false
		}
	}
	return false
}
