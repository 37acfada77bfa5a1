package guard

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// KillUser implements nodeguard.Guard. A process that forks while it is being
// killed is caught by the next pass; the uid must be seen to have no process
// twice in a row.
func (g *Guard) KillUser(ctx context.Context, uid uint32) error {
	if uid < 1000 {
		return xos.Errorf(xos.Invalid, "uid %d is no grid user's", uid)
	}
	for clean := 0; clean < 2; {
		n, err := killPass(uid)
		if err != nil {
			return err
		}
		if clean++; n > 0 {
			clean = 0
		}
		if err := ctx.Err(); err != nil {
			return xos.Errorf(xos.Unavailable, "%d processes of uid %d do not end: %w", n, uid, err)
		}
		if n > 0 {
			time.Sleep(5 * time.Millisecond) // between passes, while they die
		}
	}
	return nil
}

// killPass kills every process that has uid among its four uids and is not
// yet dead, and gives their number.
func killPass(uid uint32) (int, error) {
	pids, err := processesOf(uid)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, pid := range pids {
		// The descriptor names this process even if its pid is used again;
		// so whose it is must be asked again after opening it.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if belongs(pid, uid) {
			n++
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
	return n, nil
}

// processesOf gives the live processes that have uid among their four uids.
func processesOf(uid uint32) ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && belongs(pid, uid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// belongs reports whether a live process has uid as its real, effective, saved
// or file system uid (proc_pid_status(5)).
func belongs(pid int, uid uint32) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	want := strconv.FormatUint(uint64(uid), 10)
	scan := bufio.NewScanner(bytes.NewReader(data))
	for scan.Scan() {
		key, rest, _ := strings.Cut(scan.Text(), ":")
		fields := strings.Fields(rest)
		switch key {
		case "State":
			if len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X") {
				return false
			}
		case "Uid":
			for _, f := range fields {
				if f == want {
					return true
				}
			}
			return false
		}
	}
	return false
}
