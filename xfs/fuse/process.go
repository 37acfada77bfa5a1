package fuse

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"syscall"
)

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
