package process

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

// Census is who ran when it was taken: the uids of all processes that were not
// dead. A process that forks and ends meanwhile may be missed with its child:
// who must know that nothing is left takes another.
type Census struct {
	entries []entry // by uid
}

type entry struct {
	uid uint32
	pid int
}

// Take looks at all processes of this machine, as far as this pid namespace
// goes. What cannot be looked at is an error: it is not that nothing is there.
func Take() (Census, error) {
	// /proc/self is there only in a file system of processes that has this one.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return Census{}, xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return Census{}, xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err == nil && !slices.Contains(names, self) {
		err = errors.New("/proc does not list this process")
	}
	if err != nil {
		return Census{}, xos.Errorf(xos.Internal, "listing processes: %w", err)
	}
	var c Census
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		uids, alive, err := uidsOf(pid)
		if err != nil {
			return Census{}, err
		}
		for i, uid := range uids {
			if alive && !slices.Contains(uids[:i], uid) {
				c.entries = append(c.entries, entry{uid, pid})
			}
		}
	}
	slices.SortFunc(c.entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.pid, b.pid)) })
	return c, nil
}

// Of gives the processes that had one of the ids as their real, effective, saved
// or file system uid; some may be given twice.
func (c Census) Of(ids session.IDs) []int {
	pids := c.between(nil, ids.UID, ids.UID)
	if ids.First != 0 {
		pids = c.between(pids, ids.First, ids.Last)
	}
	return pids
}

func (c Census) between(pids []int, first, last uint32) []int {
	at, _ := slices.BinarySearchFunc(c.entries, first, func(e entry, uid uint32) int { return cmp.Compare(e.uid, uid) })
	for ; at < len(c.entries) && c.entries[at].uid <= last; at++ {
		pids = append(pids, c.entries[at].pid)
	}
	return pids
}

// Has reports whether a process is there, not dead, and has one of the ids.
func Has(pid int, ids session.IDs) (bool, error) {
	uids, alive, err := uidsOf(pid)
	return alive && slices.ContainsFunc(uids[:], ids.Has), err
}

// killIf kills a process that has one of the ids. The descriptor names this
// process even if its pid is used again; so whose it is is asked again.
func killIf(pid int, ids session.IDs) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return false, nil
	} else if err != nil {
		return false, xos.Errorf(xos.Internal, "killing process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	has, err := Has(pid, ids)
	if err == nil && has {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	return has, err
}

// uidsOf reads the four uids of a process (proc_pid_status(5)), and whether it is
// not dead: one whose first thread has ended looks so, but goes on in the others.
func uidsOf(pid int) (uids [4]uint32, alive bool, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return uids, false, nil
	} else if err != nil {
		return uids, false, xos.Errorf(xos.Internal, "looking at process %d: %w", pid, err)
	}
	if uids, alive, err = parseStatus(string(data)); err != nil {
		err = xos.Errorf(xos.Internal, "looking at process %d: %w", pid, err)
	}
	return uids, alive, err
}

func parseStatus(text string) (uids [4]uint32, alive bool, err error) {
	var state, threads string
	found := false
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch key {
		case "State":
			state = strings.Join(fields, " ")
		case "Threads":
			threads = strings.Join(fields, " ")
		case "Uid":
			if found = len(fields) == 4; !found {
				return uids, false, errors.New("it has other than four uids")
			}
			for i, f := range fields {
				uid, err := strconv.ParseUint(f, 10, 32)
				if err != nil {
					return uids, false, err
				}
				uids[i] = uint32(uid)
			}
		}
	}
	n, err := strconv.Atoi(threads)
	if err != nil || !found || state == "" {
		return uids, false, errors.New("its status lacks state, uids or threads")
	}
	return uids, n > 1 || state[0] != 'Z' && state[0] != 'X', nil
}
