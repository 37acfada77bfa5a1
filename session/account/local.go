package account

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// local is what the machine's own user database holds of names and ids. It is
// read from the files, never through NSS: that would ask this very service.
type local struct {
	names map[string]bool // of users and groups
	ids   map[uint32]bool // of users and groups
	subs  []span          // subordinate ids
}

type span struct{ first, count uint64 }

// taken reports whether an id belongs to the local machine.
func (l local) taken(id uint32) bool {
	if l.ids[id] {
		return true
	}
	for _, s := range l.subs {
		if uint64(id) >= s.first && uint64(id)-s.first < s.count {
			return true
		}
	}
	return false
}

// overlaps reports whether one of these ids belongs to the local machine.
func (l local) overlaps(first, count uint32) bool {
	for id := range l.ids {
		if id >= first && id-first < count {
			return true
		}
	}
	for _, s := range l.subs {
		if s.first < uint64(first)+uint64(count) && (s.first >= uint64(first) || uint64(first)-s.first < s.count) {
			return true
		}
	}
	return false
}

// readLocal reads passwd, group, subuid and subgid below etc. The latter two
// need not exist.
func readLocal(etc string) (local, error) {
	l := local{names: map[string]bool{}, ids: map[uint32]bool{}}
	for _, name := range []string{"passwd", "group"} {
		err := eachLine(filepath.Join(etc, name), func(fields [][]byte) {
			if len(fields) < 3 || len(fields[0]) == 0 {
				return
			}
			l.names[string(fields[0])] = true
			for _, f := range fields[2:min(4, len(fields))] { // uid and gid; a group's members are no number
				if id, err := strconv.ParseUint(string(f), 10, 32); err == nil {
					l.ids[uint32(id)] = true
				}
			}
		})
		if err != nil {
			return local{}, xos.Errorf(xos.Internal, "reading the local users: %w", err)
		}
	}
	for _, name := range []string{"subuid", "subgid"} {
		err := eachLine(filepath.Join(etc, name), func(fields [][]byte) {
			if len(fields) != 3 {
				return
			}
			first, err1 := strconv.ParseUint(string(fields[1]), 10, 64)
			count, err2 := strconv.ParseUint(string(fields[2]), 10, 64)
			if err1 == nil && err2 == nil {
				l.subs = append(l.subs, span{first, count})
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return local{}, xos.Errorf(xos.Internal, "reading the local subordinate ids: %w", err)
		}
	}
	return l, nil
}

func eachLine(path string, f func(fields [][]byte)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		f(bytes.Split(bytes.TrimRight(line, "\n"), []byte{':'}))
	}
	return nil
}

// stamp tells whether the files may have changed since.
func stamp(etc string) string {
	var s []byte
	for _, name := range []string{"passwd", "group", "subuid", "subgid"} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(etc, name), &st) == nil {
			for _, n := range []int64{int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()} {
				s = strconv.AppendInt(append(s, ' '), n, 36)
			}
		}
		s = append(s, ';')
	}
	return string(s)
}

// lockWait is how long the tools of shadow(5) wait for the lock, too.
const lockWait = 15 * time.Second

// lockLocal takes the lock that useradd and its like take, see lckpwdf(3): a
// write lock on etc/.pwd.lock. It waits until ctx ends, at most lockWait.
func lockLocal(ctx context.Context, etc string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	f, err := os.OpenFile(filepath.Join(etc, ".pwd.lock"), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "locking the local users: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EAGAIN && err != unix.EACCES && err != unix.EINTR {
			f.Close()
			return nil, xos.Errorf(xos.Unavailable, "locking the local users: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, xos.Errorf(xos.Unavailable, "another program holds the lock on the local users").
				WithHint("is useradd or vipw at work? try again")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
