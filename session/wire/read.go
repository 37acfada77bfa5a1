package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"strings"
	"syscall"

	"github.com/xtreemos/xos"
)

// snapRun is how many slots of an index are looked at, see xos_wire.h; snapVOs
// how many snapshots an id is looked for in.
const (
	snapRun = 4096
	snapVOs = 1024
)

// SnapshotFile is a VO's snapshot, opened to look a few names up. As in the C
// modules nothing in it is believed: every read is bounded by the file, and a
// record is decoded as a message is. It is safe for concurrent use.
type SnapshotFile struct {
	VO xos.VOName
	// GID is the group that may read the file: who is not in it, and not root,
	// shall not learn what it says.
	GID uint32

	f                 io.ReaderAt
	close             func() error
	slots, names, ids uint32
}

// SnapshotVOs gives the VOs that have a snapshot in dir: those that the
// machine serves.
func SnapshotVOs(dir string) ([]xos.VOName, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing was ever served here
	} else if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listing the snapshots: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(4 * snapVOs)
	if err != nil && err != io.EOF {
		return nil, xos.Errorf(xos.Unavailable, "listing the snapshots: %w", err)
	}
	var vos []xos.VOName
	for _, name := range names {
		vo, ok := strings.CutPrefix(name, "vo-")
		vo, ok2 := strings.CutSuffix(vo, ".snap")
		if ok && ok2 && xos.ValidName(vo) && len(vos) < snapVOs {
			vos = append(vos, xos.VOName(vo))
		}
	}
	return vos, nil
}

// OpenSnapshot opens a VO's snapshot in dir, for which this process needs the
// right to read it. It is xos.NotFound if the machine does not serve the VO,
// xos.Internal if the file is not what it should be. Close it.
func OpenSnapshot(dir string, vo xos.VOName) (*SnapshotFile, error) {
	if !xos.ValidName(string(vo)) {
		return nil, errNoName
	}
	f, err := os.OpenFile(SnapshotPath(dir, vo), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoName
	} else if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "opening the snapshot of %s: %w", vo, err)
	}
	st, err := f.Stat()
	var s *SnapshotFile
	if err == nil {
		s, err = readSnapshot(f, st.Size(), vo)
	}
	if err == nil {
		err = s.own(st)
	}
	if err != nil {
		f.Close()
		return nil, xos.Errorf(xos.Internal, "the snapshot of %s: %w", vo, err)
	}
	s.close = f.Close
	return s, nil
}

// own takes the owner's group, if the file is root's (this process's own, in
// tests that are not root's) and nobody else's to write.
func (s *SnapshotFile) own(st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || sys.Uid != 0 && int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return xos.Errorf(xos.Internal, "it is not root's alone")
	}
	s.GID = sys.Gid
	return nil
}

// readSnapshot checks the header of a file of size bytes.
func readSnapshot(f io.ReaderAt, size int64, vo xos.VOName) (*SnapshotFile, error) {
	bad := func(what string) (*SnapshotFile, error) {
		return nil, xos.Errorf(xos.Internal, "%s", what)
	}
	var h [snapHeader]byte
	if n, _ := f.ReadAt(h[:], 0); n != len(h) {
		return bad("it has no header")
	}
	le := binary.LittleEndian
	n := int(le.Uint32(h[44:]))
	switch {
	case string(h[:8]) != snapMagic || le.Uint32(h[8:]) != snapVersion:
		return bad("its format is another")
	case int64(le.Uint32(h[12:])) != size || size > snapMax:
		return bad("its size is not what it says")
	case n != len(vo) || n > snapHeader-48 || string(h[48:48+n]) != string(vo):
		return bad("it is another VO's")
	}
	s := &SnapshotFile{VO: vo, f: f, slots: le.Uint32(h[32:]), names: le.Uint32(h[36:]), ids: le.Uint32(h[40:])}
	index := int64(s.slots) * 8
	if bits.OnesCount32(s.slots) != 1 || int64(s.names)+index > size || int64(s.ids)+index > size {
		return bad("its index does not fit")
	}
	return s, nil
}

// Close gives the file up.
func (s *SnapshotFile) Close() error { return s.close() }

// Record is what a snapshot says of a name or id: a user or a group.
type Record struct {
	User  *SnapshotUser
	Group *Group
}

// Name is the name of the user or group.
func (r Record) Name() string {
	if r.User != nil {
		return r.User.Name
	}
	return r.Group.Name
}

// ID is the uid of the user or the gid of the group.
func (r Record) ID() uint32 {
	if r.User != nil {
		return r.User.UID
	}
	return r.Group.GID
}

// Named finds a user or group by name, xos.NotFound if there is none.
func (s *SnapshotFile) Named(name string) (Record, error) {
	return s.find(s.names, nameKey(name), func(r Record) bool { return r.Name() == name })
}

// Numbered finds a user by uid, or a VO group by gid. A user's gid is her uid.
func (s *SnapshotFile) Numbered(id uint32) (Record, error) {
	return s.find(s.ids, id, func(r Record) bool { return r.ID() == id })
}

func (s *SnapshotFile) find(index, key uint32, wanted func(Record) bool) (Record, error) {
	slot := slotOf(key)
	for seen := uint32(0); seen < min(s.slots, snapRun); seen++ {
		var e [8]byte
		at := int64(index) + int64((slot+seen)&(s.slots-1))*8
		if n, err := s.f.ReadAt(e[:], at); n != len(e) {
			return Record{}, xos.Errorf(xos.Internal, "the snapshot of %s ends early: %w", s.VO, err)
		}
		offset := binary.LittleEndian.Uint32(e[4:])
		if offset == 0 {
			break
		}
		if binary.LittleEndian.Uint32(e[:]) != key {
			continue
		}
		r, err := s.record(offset)
		if err != nil {
			return Record{}, err
		}
		if wanted(r) { // a key may be another name's too
			return r, nil
		}
	}
	return Record{}, errNoName
}

// record reads the record at an offset, and refuses one that would speak for
// another VO.
func (s *SnapshotFile) record(offset uint32) (Record, error) {
	broken := xos.Errorf(xos.Internal, "the snapshot of %s has a broken record", s.VO)
	var h [8]byte
	if n, _ := s.f.ReadAt(h[:], int64(offset)); n != len(h) {
		return Record{}, broken
	}
	size := binary.LittleEndian.Uint32(h[4:])
	if size > maxBody {
		return Record{}, broken
	}
	body := make([]byte, size)
	if n, _ := s.f.ReadAt(body, int64(offset)+int64(len(h))); n != len(body) {
		return Record{}, broken
	}
	d := &decoder{b: body}
	var r Record
	switch binary.LittleEndian.Uint32(h[:]) {
	case snapUser:
		u := SnapshotUser{Passwd: d.passwd(), Groups: d.ids()}
		r.User = &u
		if a, err := xos.ParseAccount(u.Name); d.end() != nil || err != nil || a.VO != s.VO {
			return Record{}, broken
		}
	case snapGroup:
		g := d.group()
		r.Group = &g
		if vo, _, _ := strings.Cut(g.Name, ":"); d.end() != nil || !ValidGroup(g.Name) || vo != string(s.VO) {
			return Record{}, broken
		}
	default:
		return Record{}, broken
	}
	return r, nil
}
