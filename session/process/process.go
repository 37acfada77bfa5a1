// Package process tells local processes apart for longer than a pid does: a
// pid is used again, a pid with its start time is not.
package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// ID names one process of this boot. Start is field 22 of /proc/PID/stat: clock
// ticks since boot, see proc(5).
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// userHz is the unit of proc(5)'s ticks on every architecture we build for.
const userHz = 100

// Of gives the identity of a running process; xos.NotFound if there is none.
func Of(pid int) (ID, error) {
	fields, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return ID{}, xos.Errorf(xos.Internal, "start time of process %d: %w", pid, err)
	}
	return ID{PID: pid, Start: start}, nil
}

// Parent names the parent of a running process; xos.NotFound if there is none,
// and none other than the init process.
func Parent(pid int) (ID, error) {
	fields, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil || parent <= 1 {
		return ID{}, xos.Errorf(xos.NotFound, "process %d has no parent here", pid)
	}
	return Of(parent)
}

// RealUser gives the real uid of a process: for a setuid program, who started
// it.
func RealUser(pid int) (uint32, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, xos.Errorf(xos.NotFound, "process %d is gone", pid)
	}
	for line := range strings.Lines(string(data)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			fields := strings.Fields(ids)
			if len(fields) != 4 {
				break
			}
			uid, err := strconv.ParseUint(fields[0], 10, 32)
			if err == nil {
				return uint32(uid), nil
			}
		}
	}
	return 0, xos.Errorf(xos.Internal, "cannot read /proc/%d/status", pid)
}

// stat gives the fields of /proc/PID/stat from the third (state) on.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "process %d is gone", pid)
	}
	// The second field is the command in parentheses, which may hold anything.
	end := bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[end+1:]))
	if end < 0 || len(fields) < 20 {
		return nil, xos.Errorf(xos.Internal, "cannot read /proc/%d/stat", pid)
	}
	return fields, nil
}

// Open gives a pidfd of exactly this process; xos.NotFound if it has ended. The
// caller closes it.
func (id ID) Open() (*os.File, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "process %d: %w", id.PID, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", id.PID))
	// The descriptor pins the process, so that this look is at the same one.
	if now, err := Of(id.PID); err != nil || now.Start != id.Start {
		f.Close()
		return nil, xos.Errorf(xos.NotFound, "process %d is gone", id.PID)
	}
	return f, nil
}

// Ended reports whether the process behind a pidfd has ended.
func Ended(pidfd *os.File) bool {
	return unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0) == unix.ESRCH
}

// Kill ends exactly this process with SIGKILL; it is no error if it has ended.
func (id ID) Kill() error {
	f, err := id.Open()
	if xos.Is(err, xos.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return xos.Errorf(xos.Internal, "killing process %d: %w", id.PID, err)
	}
	return nil
}

// Now gives the present in the unit and clock of ID.Start.
func Now() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, xos.Errorf(xos.Internal, "reading the boot clock: %w", err)
	}
	return uint64(ts.Sec)*userHz + uint64(ts.Nsec)/(1e9/userHz), nil
}

// Boot names the present boot of this machine.
func Boot() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", xos.Errorf(xos.Internal, "reading the boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
