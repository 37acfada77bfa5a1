package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/xtreemos/xos"
)

// Snapshot is all that lookups may say of one VO's accounts on this machine.
type Snapshot struct {
	VO xos.VOName
	// Generation is not 0, and grows.
	Generation uint64
	// GID is the gid of the VO's own group: its members may read the file.
	GID   uint32
	Users []SnapshotUser
	// Groups are the VO's, the one named like the VO included. Their members
	// follow from Users.
	Groups []SnapshotGroup
}

// SnapshotUser is an account that has a uid on this machine, and the gids of
// its VO groups.
type SnapshotUser struct {
	Passwd
	Groups []uint32
}

// SnapshotGroup is a VO group, "physics" or "physics:higgs".
type SnapshotGroup struct {
	Name string
	GID  uint32
}

// Whole is a Snapshot whose users are made one by one, since there may be very
// many. Its generation is given to it.
type Whole struct {
	VO     xos.VOName
	GID    uint32
	Groups []SnapshotGroup
	// Len is how many users there are, and User gives each of them, more than
	// once and in several goroutines.
	Len  int
	User func(i int) SnapshotUser
}

// Whole is the same, of users that are all there.
func (s Snapshot) Whole() Whole {
	return Whole{s.VO, s.GID, s.Groups, len(s.Users), func(i int) SnapshotUser { return s.Users[i] }}
}

// SnapshotPath is the file of a VO's snapshot in dir.
func SnapshotPath(dir string, vo xos.VOName) string {
	return filepath.Join(dir, "vo-"+string(vo)+".snap")
}

// giveUp makes processes that have the VO's snapshot mapped look for another
// one. Where that fails they do so only after XOS_TRUSTED_MS (xos_shim.h); so
// what comes next must be done in any case, and an error would help nobody.
func giveUp(dir string, vo xos.VOName) {
	f, err := os.OpenFile(SnapshotPath(dir, vo), os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Size() >= snapHeader {
		f.WriteAt(make([]byte, 8), snapGen)
	}
}

// RemoveSnapshot makes dir say that the VO is not served; it is no error if it
// was not.
func RemoveSnapshot(dir string, vo xos.VOName) error {
	giveUp(dir, vo)
	if err := os.Remove(SnapshotPath(dir, vo)); err != nil && !os.IsNotExist(err) {
		return xos.Errorf(xos.Internal, "removing the snapshot of %s: %w", vo, err)
	}
	return nil
}

// WriteSnapshot puts s into dir (mode 0755, root's), in place of the VO's
// former one, all of it in one file. Readers see the one or the other, never a
// mixture. The file is 0640 root:GID when it appears. Write one for each VO the
// machine serves, also while it has no user: the modules take a VO without a
// snapshot as one that is not served. A Publisher does so at less cost.
//
// A group's list of members is cut where it would exceed a message; the
// users' own lists of groups, which decide, are never cut.
func WriteSnapshot(dir string, s Snapshot) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	return writeHead(dir, s.VO, s.GID, b)
}

// writeHead puts a head in place of the former one.
func writeHead(dir string, vo xos.VOName, gid uint32, b []byte) error {
	return place(SnapshotPath(dir, vo), vo, gid, func(f *os.File) error { _, err := f.Write(b); return err }, func() { giveUp(dir, vo) })
}

// basePath is the file of a base.
func basePath(dir string, vo xos.VOName, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("vo-%s.%016x.base", vo, generation))
}

// place makes a file appear with all that is in it. What must be done right
// before it does is done then.
func place(path string, vo xos.VOName, gid uint32, fill func(f *os.File) error, before func()) error {
	f, err := os.CreateTemp(filepath.Dir(path), unfinished+string(vo)+"-*")
	if err != nil {
		return xos.Errorf(xos.Internal, "writing the snapshot of %s: %w", vo, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	for _, step := range []func() error{
		func() error { return f.Chown(0, int(gid)) },
		func() error { return f.Chmod(0o640) },
		func() error { return fill(f) },
		f.Close,
		func() error { before(); return nil },
		func() error { return os.Rename(f.Name(), path) },
	} {
		if err := step(); err != nil {
			return xos.Errorf(xos.Internal, "writing the snapshot of %s: %w", vo, err)
		}
	}
	return nil
}

// unfinished begins the names of files that are being written.
const unfinished = ".new-"

// encode lays all of s out in one file, or says what in it contradicts itself.
func (s Snapshot) encode() ([]byte, error) {
	w := s.Whole()
	lists, err := w.rosters()
	if err != nil {
		return nil, err
	}
	w.enroll(lists)
	l := w.begin(lists)
	for i := range s.Users {
		if err := s.Users[i].check(s.VO); err != nil {
			return nil, err
		}
		l.user(&s.Users[i])
	}
	return l.finish(s.Generation)
}

// begin lays out all but the users.
func (w Whole) begin(lists rosters) *layout {
	size := 0
	for _, r := range lists {
		size += 256 + r.size
	}
	l := newLayout(w.VO, 0, w.Len+len(w.Groups), size)
	for _, g := range w.Groups {
		l.group(lists[g.GID].group())
	}
	return l
}

// check refuses a user of another VO.
func (u *SnapshotUser) check(vo xos.VOName) error {
	n := len(u.Name) - len(vo) - 1 // the grammar of ParseAccount, but vo is known to follow it
	if n < 1 || u.Name[n] != '@' || u.Name[n+1:] != string(vo) || !xos.ValidName(u.Name[:n]) || xos.ReservedName(u.Name[:n]) || u.GID != u.UID {
		return xos.Errorf(xos.Invalid, "snapshot of %s: bad user %.80q (%d, %d)", vo, u.Name, u.UID, u.GID)
	}
	return nil
}
