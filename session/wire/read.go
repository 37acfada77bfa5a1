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

// snapVOs is how many snapshots an id is looked for in.
const snapVOs = 1024

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
	generation        uint64
	based             uint64        // generation of the base, or 0
	base              *SnapshotFile // or nil
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
// xos.Internal if a file is not what it should be. Close it.
func OpenSnapshot(dir string, vo xos.VOName) (*SnapshotFile, error) {
	if !xos.ValidName(string(vo)) {
		return nil, errNoName
	}
	for range 16 { // another head may take its place, and its base be removed
		s, err := openFile(SnapshotPath(dir, vo), vo)
		if err != nil || s.based == 0 {
			return s, err
		}
		base, err := openFile(basePath(dir, vo, s.based), vo)
		if err == nil {
			if err = s.join(base); err == nil {
				return s, nil
			}
			base.Close()
		}
		s.Close()
		if !xos.Is(err, xos.NotFound) {
			return nil, err
		}
	}
	return nil, xos.Errorf(xos.Internal, "the snapshot of %s has no base", vo)
}

// join gives a head the base that it names.
func (s *SnapshotFile) join(base *SnapshotFile) error {
	if s.based == 0 || base.based != 0 || base.generation != s.based || base.GID != s.GID {
		return xos.Errorf(xos.Internal, "the snapshot of %s: its base is another's", s.VO)
	}
	s.base = base
	return nil
}

func openFile(path string, vo xos.VOName) (*SnapshotFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
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
	var h [snapBasedHeader]byte
	if n, _ := f.ReadAt(h[:], 0); n != len(h) {
		return bad("it has no header")
	}
	version, header := binary.LittleEndian.Uint32(h[8:]), uint32(snapHeader)
	based := uint64(0)
	if version == snapBased {
		based, header = binary.LittleEndian.Uint64(h[snapHeader:]), snapBasedHeader
	}
	le := binary.LittleEndian
	n := int(le.Uint32(h[44:]))
	switch {
	case string(h[:8]) != snapMagic || version != snapVersion && based == 0:
		return bad("its format is another")
	case int64(le.Uint32(h[12:])) != size || size > snapMax:
		return bad("its size is not what it says")
	case n != len(vo) || n > snapHeader-48 || string(h[48:48+n]) != string(vo):
		return bad("it is another VO's")
	}
	s := &SnapshotFile{VO: vo, f: f, generation: le.Uint64(h[snapGen:]), based: based, slots: le.Uint32(h[32:]), names: le.Uint32(h[36:]), ids: le.Uint32(h[40:])}
	index := int64(s.slots) * 8
	if bits.OnesCount32(s.slots) != 1 || s.names < header || s.ids < header || int64(s.names)+index > size || int64(s.ids)+index > size {
		return bad("its index does not fit")
	}
	return s, nil
}

// Close gives the files up.
func (s *SnapshotFile) Close() error {
	err := s.close()
	if s.base != nil {
		err = errors.Join(err, s.base.Close())
	}
	return err
}

// Record is what a snapshot says of a name or id: a user or a group.
type Record struct {
	User  *SnapshotUser
	Group *Group
}

// entry is what a file says: a record, or that what the base has is gone.
type entry struct {
	Record
	gone bool
	name string
	id   uint32
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
	return s.look(func(s *SnapshotFile) (entry, error) {
		return s.find(s.names, nameKey(name), func(e entry) bool { return e.name == name })
	})
}

// Numbered finds a user by uid, or a VO group by gid. A user's gid is her uid.
func (s *SnapshotFile) Numbered(id uint32) (Record, error) {
	return s.look(func(s *SnapshotFile) (entry, error) {
		return s.find(s.ids, id, func(e entry) bool { return e.id == id })
	})
}

// look looks in the head and, if that says nothing, in the base.
func (s *SnapshotFile) look(find func(*SnapshotFile) (entry, error)) (Record, error) {
	e, err := find(s)
	if s.base != nil && xos.Is(err, xos.NotFound) {
		e, err = find(s.base)
	}
	if err == nil && e.gone {
		err = errNoName
	}
	return e.Record, err
}

func (s *SnapshotFile) find(index, key uint32, wanted func(entry) bool) (entry, error) {
	slot := slotOf(key)
	for seen := uint32(0); seen < min(s.slots, snapRun); seen++ {
		var b [8]byte
		at := int64(index) + int64((slot+seen)&(s.slots-1))*8
		if n, err := s.f.ReadAt(b[:], at); n != len(b) {
			return entry{}, xos.Errorf(xos.Internal, "the snapshot of %s ends early: %w", s.VO, err)
		}
		offset := binary.LittleEndian.Uint32(b[4:])
		if offset == 0 {
			break
		}
		if binary.LittleEndian.Uint32(b[:]) != key {
			continue
		}
		r, err := s.record(offset)
		if err != nil {
			return entry{}, err
		}
		if wanted(r) { // a key may be another name's too
			return r, nil
		}
	}
	return entry{}, errNoName
}

// record reads the record at an offset, and refuses one that would speak for
// another VO.
func (s *SnapshotFile) record(offset uint32) (entry, error) {
	broken := xos.Errorf(xos.Internal, "the snapshot of %s has a broken record", s.VO)
	var h [8]byte
	if n, _ := s.f.ReadAt(h[:], int64(offset)); n != len(h) {
		return entry{}, broken
	}
	size := binary.LittleEndian.Uint32(h[4:])
	if size > maxBody {
		return entry{}, broken
	}
	body := make([]byte, size)
	if n, _ := s.f.ReadAt(body, int64(offset)+int64(len(h))); n != len(body) {
		return entry{}, broken
	}
	d := &decoder{b: body}
	var r entry
	switch binary.LittleEndian.Uint32(h[:]) {
	case snapUser:
		u := SnapshotUser{Passwd: d.passwd(), Groups: d.ids()}
		r.User, r.name, r.id = &u, u.Name, u.UID
		if a, err := xos.ParseAccount(u.Name); d.end() != nil || err != nil || a.VO != s.VO {
			return entry{}, broken
		}
	case snapGroup:
		g := d.group()
		r.Group, r.name, r.id = &g, g.Name, g.GID
		if vo, _, _ := strings.Cut(g.Name, ":"); d.end() != nil || !ValidGroup(g.Name) || vo != string(s.VO) {
			return entry{}, broken
		}
	case snapGone:
		r.gone, r.name, r.id = true, d.str(), d.id()
		if d.end() != nil {
			return entry{}, broken
		}
	default:
		return entry{}, broken
	}
	return r, nil
}
