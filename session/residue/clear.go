package residue

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

// Clear takes away what the machine itself keeps under an id's number and
// nobody else could: the kernel's keyrings of the uid, and its entry in
// lastlog. No process may have the id. What is a person's is left alone.
func Clear(id uint32) error {
	if id < 1000 {
		return xos.Errorf(xos.Invalid, "%d is none of ours to clear", id)
	}
	if err := clearKeyrings(id); err != nil {
		return xos.Errorf(xos.Internal, "clearing the keyrings of %d: %w", id, err)
	}
	if err := clearLastlog(id); err != nil {
		return xos.Errorf(xos.Internal, "clearing the last login of %d: %w", id, err)
	}
	return nil
}

// ClearSubIDs takes the kernel's keyrings of subordinate ids away, as Clear does
// of a uid.
func ClearSubIDs(first uint32) error {
	if first < 1000 || first%SubIDs != 0 {
		return xos.Errorf(xos.Invalid, "subordinate ids cannot begin at %d", first)
	}
	owners, err := keyOwners()
	if err != nil {
		return nil // none, or the search says so
	}
	for _, id := range owners {
		if id&^(SubIDs-1) != first {
			continue
		}
		if err := clearKeyrings(id); err != nil {
			return xos.Errorf(xos.Internal, "clearing the keyrings of %d: %w", id, err)
		}
	}
	return nil
}

func clearLastlog(id uint32) error {
	f, err := os.OpenFile(lastlogPath, os.O_RDWR, 0)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	record := make([]byte, lastlogSize)
	n, _ := f.ReadAt(record, int64(id)*lastlogSize)
	if n == 0 || slices.Max(record) == 0 {
		return nil // nothing there: it must not grow
	}
	_, err = f.WriteAt(make([]byte, n), int64(id)*lastlogSize)
	return err
}

// ShortenLastlog cuts the records of grid ids off the machine's lastlog, which is as
// long as the highest id that it has one of: with such a one 500 GB, sparse as it is.
// Debian 12's login writes there before any module of a session could have it write
// elsewhere. Records of lower ids stay; of one that was never in the file before and is
// written at the same moment, the record may go.
func ShortenLastlog() error {
	if err := shorten(lastlogPath, int64(session.FirstID), int64(session.LastID)); err != nil {
		return xos.Errorf(xos.Internal, "taking grid users out of %s: %w", lastlogPath, err)
	}
	return nil
}

func shorten(path string, first, last int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	limit := first * lastlogSize
	if err != nil || info.Size() <= limit || info.Size() > (last+1)*lastlogSize {
		return err // a file that is longer has records of somebody's beyond
	}
	end := int64(0)
	for end < limit {
		data, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || data >= limit {
			break
		} else if err != nil {
			return err
		}
		if end, err = f.Seek(data, unix.SEEK_HOLE); err != nil {
			return err
		}
	}
	return f.Truncate(min(end, limit))
}

// clearKeyrings invalidates the uid's two keyrings, see user-keyring(7). Only
// the uid itself may, so a thread becomes it for as long; but where it has none,
// doing so would make them.
func clearKeyrings(id uint32) error {
	owners, err := keyOwners()
	if err != nil || !slices.Contains(owners, id) {
		return nil
	}
	onThread(func() {
		become := func(uid uint32) error {
			_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), 0) // root stays saved
			if errno != 0 {
				return errno
			}
			return nil
		}
		if err = become(id); err != nil {
			return
		}
		var rings []int // by number: looking for one makes the other anew
		for _, special := range []int{unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING} {
			if ring, kerr := unix.KeyctlGetKeyringID(special, false); kerr == nil {
				rings = append(rings, ring)
			}
		}
		for _, ring := range rings {
			if _, kerr := unix.KeyctlInt(unix.KEYCTL_INVALIDATE, ring, 0, 0, 0); kerr != nil && err == nil {
				err = kerr
			}
		}
		if rerr := become(0); rerr != nil && err == nil {
			err = rerr
		}
	})
	return err
}
