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
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
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
func (g *Guard) Freeze(ctx context.Context, ids session.IDs, on bool) (string, error) {
	if ids.UID < 1000 || ids.First != 0 && ids.First < 1000 {
		return "", xos.Errorf(xos.Invalid, "uid %d with %d to %d is no grid user's", ids.UID, ids.First, ids.Last)
	}
	g.freezing.Lock()
	defer g.freezing.Unlock()
	if !on {
		return g.thaw(ids)
	}
	slice, err := g.cgroups.freeze(ids.UID, true)
	if err != nil {
		return "", err
	}
	n, err := g.stopAll(ctx, ids)
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
func (g *Guard) stopAll(ctx context.Context, ids session.IDs) (int, error) {
	record := g.readStopped(ids.UID)
	known := map[stopped]bool{}
	for _, s := range record {
		known[s] = true
	}
	for clean := 0; clean < 2; {
		n := 0
		all, err := g.looks.Take(ctx)
		if err != nil {
			return len(record), err
		}
		for _, pid := range all.Of(ids) {
			s, runs, err := g.atLarge(pid, ids)
			if err != nil {
				return len(record), err
			}
			if !runs {
				continue
			}
			if !known[s] {
				// On record before it happens: else it might never be resumed.
				known[s], record = true, append(record, s)
				if err := g.writeStopped(ids.UID, record); err != nil {
					return len(record), err
				}
			}
			n++
			if _, err := signalExactly(s, ids, unix.SIGSTOP); err != nil {
				return len(record), err
			}
		}
		if clean++; n > 0 {
			clean = 0
		}
		if err := ctx.Err(); err != nil {
			return len(record), xos.Errorf(xos.Unavailable, "%d processes of uid %d do not stop: %w", n, ids.UID, err)
		}
		if n > 0 {
			time.Sleep(5 * time.Millisecond) // between passes, while they stop
		}
	}
	return len(record), nil
}

// atLarge names a process, and reports whether it runs where no cgroup holds it.
// One that has ended does not; of one that cannot be looked at nothing is known.
func (g *Guard) atLarge(pid int, ids session.IDs) (stopped, bool, error) {
	held, err := g.heldByCgroup(pid, ids.UID)
	if err == nil && held {
		return stopped{}, false, nil // frozen, or a job's
	}
	var start uint64
	runs := false
	if err == nil {
		runs, start, err = stateOf(pid)
	}
	if gone(err) {
		return stopped{}, false, nil
	}
	return stopped{pid, start}, runs, err
}

// gone is whether the file was of a process or a cgroup that is no more; it may have
// been when the file was opened.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV)
}

func (g *Guard) thaw(ids session.IDs) (string, error) {
	slice, err := g.cgroups.freeze(ids.UID, false)
	if err != nil {
		return "", err
	}
	n := 0
	var errs []error
	for _, s := range g.readStopped(ids.UID) {
		did, err := signalExactly(s, ids, unix.SIGCONT)
		if did {
			n++
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return "", err // they stay on record
	}
	if err := os.Remove(g.frozenFile(ids.UID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// signalExactly signals a process if it is still the one meant, and one of the
// ids'.
func signalExactly(s stopped, ids session.IDs, sig unix.Signal) (bool, error) {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err == unix.ESRCH {
		return false, nil
	} else if err != nil {
		return false, xos.Errorf(xos.Internal, "signalling process %d: %w", s.PID, err)
	}
	defer unix.Close(fd)
	_, start, err := stateOf(s.PID)
	if gone(err) || err == nil && start != s.Start {
		return false, nil
	}
	has := false
	if err == nil {
		has, err = process.Has(s.PID, ids)
	}
	if err != nil || !has {
		return false, err
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil, nil
}

// stateOf tells whether a thread of a process runs, or waits for something, and
// when the process was started (proc_pid_stat(5)). What has stopped, also for who
// debugs it, does not run.
func stateOf(pid int) (runs bool, start uint64, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	state, start, err := statOf(dir + "/stat")
	if err != nil || state != 'Z' && state != 'X' {
		return err == nil && state != 'T' && state != 't', start, err
	}
	// The first thread has ended; others may go on.
	threads, err := os.ReadDir(dir + "/task")
	if err != nil {
		return false, 0, err
	}
	for _, thread := range threads {
		state, _, err := statOf(dir + "/task/" + thread.Name() + "/stat")
		if err != nil && !gone(err) {
			return false, 0, err
		}
		if err == nil && !strings.ContainsRune("TtZX", rune(state)) {
			return true, start, nil
		}
	}
	return false, start, nil
}

func statOf(path string) (state byte, start uint64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name may have anything in it
	if len(fields) < 20 {
		return 0, 0, xos.Errorf(xos.Internal, "%s is malformed", path)
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
