package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Where systemd-logind puts a user's sessions, there all of them are frozen at
// once by the slice: a process cannot leave it, nor see or undo that. What is
// elsewhere is stopped by SIGSTOP, one by one: its parent may notice, and root
// may wake it. What was stopped is on record, so that nothing else is resumed.

// stopped is a process that was stopped by a signal, by its pid and start.
type stopped struct {
	PID   int
	Start uint64
}

// frozenFile has what was stopped of a uid.
func (g *Guard) frozenFile(uid uint32) string {
	return filepath.Join(g.run, "frozen", strconv.FormatUint(uint64(uid), 10)+".json")
}

func (c cgroups) slice(uid uint32) string {
	return filepath.Join(c.root, "user.slice", fmt.Sprintf("user-%d.slice", uid))
}

// Freeze implements nodeguard.Guard.
func (g *Guard) Freeze(ctx context.Context, uid uint32, on bool) (string, error) {
	if uid < 1000 {
		return "", xos.Errorf(xos.Invalid, "uid %d is no grid user's", uid)
	}
	g.freezing.Lock()
	defer g.freezing.Unlock()
	if !on {
		return g.thaw(uid)
	}
	slice, err := g.cgroups.freeze(uid, true)
	if err != nil {
		return "", err
	}
	n, err := g.stopAll(ctx, uid)
	return means(slice, n, "stopped"), err
}

func means(slice bool, n int, did string) string {
	var parts []string
	if slice {
		parts = append(parts, "its slice")
	}
	if n > 0 {
		parts = append(parts, fmt.Sprintf("%d processes %s by signal", n, did))
	}
	if len(parts) == 0 {
		return "nothing runs"
	}
	return strings.Join(parts, ", ")
}

// base is where the root is in its hierarchy, as /proc/PID/cgroup has it.
func (c cgroups) base() string {
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if rest, ok := strings.CutPrefix(c.root, mount); ok {
			return strings.TrimSuffix(rest, "/")
		}
	}
	return ""
}

// freeze freezes or thaws a user's slice, if there is one.
func (c cgroups) freeze(uid uint32, on bool) (bool, error) {
	want := "0"
	if on {
		want = "1"
	}
	err := os.WriteFile(filepath.Join(c.slice(uid), "cgroup.freeze"), []byte(want), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, xos.Errorf(xos.Internal, "freezing the slice of uid %d: %w", uid, err)
	}
	return true, nil
}

// stopAll stops what the slice does not hold, until two passes in a row find
// nothing that runs.
func (g *Guard) stopAll(ctx context.Context, uid uint32) (int, error) {
	record := g.readStopped(uid)
	known := map[stopped]bool{}
	for _, s := range record {
		known[s] = true
	}
	for clean := 0; clean < 2; {
		n := 0
		pids, err := processesOf(uid)
		if err != nil {
			return len(record), err
		}
		for _, pid := range pids {
			held, err := g.heldByCgroup(pid, uid)
			if err != nil || held {
				continue // gone, or frozen, or a job's
			}
			state, start, err := stateOf(pid)
			if err != nil || state == 'T' || state == 't' || state == 'Z' || state == 'X' {
				continue
			}
			s := stopped{pid, start}
			if !known[s] {
				// On record before it happens: else it might never be resumed.
				known[s], record = true, append(record, s)
				if err := g.writeStopped(uid, record); err != nil {
					return len(record), err
				}
			}
			n++
			signalExactly(s, uid, unix.SIGSTOP)
		}
		if clean++; n > 0 {
			clean = 0
		}
		if err := ctx.Err(); err != nil {
			return len(record), xos.Errorf(xos.Unavailable, "%d processes of uid %d do not stop: %w", n, uid, err)
		}
		if n > 0 {
			time.Sleep(5 * time.Millisecond) // between passes, while they stop
		}
	}
	return len(record), nil
}

func (g *Guard) thaw(uid uint32) (string, error) {
	slice, err := g.cgroups.freeze(uid, false)
	if err != nil {
		return "", err
	}
	n := 0
	for _, s := range g.readStopped(uid) {
		if signalExactly(s, uid, unix.SIGCONT) {
			n++
		}
	}
	if err := os.Remove(g.frozenFile(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", xos.Errorf(xos.Internal, "forgetting what was stopped: %w", err)
	}
	return means(slice, n, "resumed"), nil
}

// heldByCgroup reports whether a process is in the user's slice, or in a job's
// cgroup, which is frozen with the job.
func (g *Guard) heldByCgroup(pid int, uid uint32) (bool, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		base := g.cgroups.base()
		under := func(dir string) bool { return path == base+dir || strings.HasPrefix(path, base+dir+"/") }
		return under("/user.slice/user-"+strconv.FormatUint(uint64(uid), 10)+".slice") || under("/"+g.cgroups.subtree), nil
	}
	return false, nil
}

// signalExactly signals a process if it is still the one meant, and the uid's.
func signalExactly(s stopped, uid uint32, sig unix.Signal) bool {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if _, start, err := stateOf(s.PID); err != nil || start != s.Start || !belongs(s.PID, uid) {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// stateOf reads a process's state and start time (proc_pid_stat(5)).
func stateOf(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name may have anything in it
	if len(fields) < 20 {
		return 0, 0, xos.Errorf(xos.Internal, "process %d has a malformed state", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

func (g *Guard) readStopped(uid uint32) (list []stopped) {
	data, err := os.ReadFile(g.frozenFile(uid))
	if err != nil || json.Unmarshal(data, &list) != nil {
		return nil
	}
	return list
}

func (g *Guard) writeStopped(uid uint32, list []stopped) error {
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	path := g.frozenFile(uid)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return xos.Errorf(xos.Internal, "noting what is stopped: %w", err)
	}
	// Only xos-node's death must be survived, not the machine's.
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return xos.Errorf(xos.Internal, "noting what is stopped: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return xos.Errorf(xos.Internal, "noting what is stopped: %w", err)
	}
	return nil
}
