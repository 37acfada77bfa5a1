package unit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/xtreemos/xos"
)

// Process is what /proc/PID/stat says of one.
type Process struct {
	State     byte // 'R', 'S', 'T', 'Z', …
	StartTime uint64
}

// ReadProcess reads /proc/PID/stat; xos.NotFound if there is no such process.
func ReadProcess(pid int) (Process, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, xos.Errorf(xos.NotFound, "no process %d", pid)
	}
	return ParseStat(data)
}

// ParseStat reads a line of proc_pid_stat(5). The name in parentheses may hold
// anything, so it is cut off at the last one.
func ParseStat(data []byte) (Process, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return Process{}, xos.Errorf(xos.Invalid, "%.40q is no process status", data)
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 20 || len(fields[0]) != 1 {
		return Process{}, xos.Errorf(xos.Invalid, "a process status with %d fields", len(fields))
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, xos.Errorf(xos.Invalid, "a process status without a start time")
	}
	return Process{State: fields[0][0], StartTime: start}, nil
}

// Alive reports whether the supervisor that wrote st still runs.
func (st State) Alive() bool {
	if st.PID <= 0 {
		return false
	}
	p, err := ReadProcess(st.PID)
	return err == nil && p.StartTime == st.StartTime && p.State != 'Z'
}
