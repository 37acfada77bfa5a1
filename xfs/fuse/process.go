package fuse

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// killed reports whether a process is ending because of a signal.
func killed(pid uint32) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && endedBySignal(data)
}

// Flags of a task in /proc/PID/stat (include/linux/sched.h).
const (
	taskExiting  = 0x4   // PF_EXITING
	taskSignaled = 0x400 // PF_SIGNALED: killed by a signal
)

// endedBySignal reads /proc/PID/stat: the ninth field has the task's flags,
// the second is a name in parentheses with any characters.
func endedBySignal(stat []byte) bool {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	const both = taskExiting | taskSignaled
	return err == nil && flags&both == both
}

// pendingKill reads /proc/PID/status for a pending SIGKILL.
func pendingKill(status []byte) bool {
	scan := bufio.NewScanner(bytes.NewReader(status))
	for scan.Scan() {
		key, value, _ := strings.Cut(scan.Text(), ":")
		if key != "SigPnd" && key != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && mask&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
