package wire

import (
	"encoding/binary"
	"hash/fnv"
	"math/bits"
	"os"
	"path/filepath"
	"syscall"

	"github.com/xtreemos/xos"
)

// The format of snapshots; see xos_wire.h.
const (
	snapMagic   = "XOSSNAP\n"
	snapVersion = 1
	snapHeader  = 80
	snapGen     = 16 // offset of the generation
	snapMax     = 1 << 30
	snapMix     = 0x9e3779b1
	snapUser    = 1
	snapGroup   = 2
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
// former one. Readers see the one or the other, never a mixture. The file is
// 0640 root:GID when it appears. Write one for each VO the machine serves,
// also while it has no user: the modules take a VO without a snapshot as one
// that is not served.
//
// A group's list of members is cut where it would exceed a message; the
// users' own lists of groups, which decide, are never cut.
func WriteSnapshot(dir string, s Snapshot) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	path := SnapshotPath(dir, s.VO)
	f, err := os.CreateTemp(dir, ".new-"+string(s.VO)+"-*")
	if err != nil {
		return xos.Errorf(xos.Internal, "writing the snapshot of %s: %w", s.VO, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	for _, step := range []func() error{
		func() error { return f.Chown(0, int(s.GID)) },
		func() error { return f.Chmod(0o640) },
		func() error { _, err := f.Write(b); return err },
		f.Close,
		func() error { giveUp(dir, s.VO); return nil },
		func() error { return os.Rename(f.Name(), path) },
	} {
		if err := step(); err != nil {
			return xos.Errorf(xos.Internal, "writing the snapshot of %s: %w", s.VO, err)
		}
	}
	return nil
}

// encode lays the file out, or says what in s contradicts itself.
func (s Snapshot) encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	slots := uint32(1) << bits.Len(uint(len(s.Users)+len(s.Groups)))
	slots *= 2 // at most half full: runs stay short
	e := encoder{b: make([]byte, snapHeader, snapHeader+int(slots)*16)}
	h := e.b
	copy(h, snapMagic)
	names := index{at: snapHeader, slots: slots}
	ids := index{at: snapHeader + slots*8, slots: slots}
	e.b = append(e.b, make([]byte, slots*16)...)

	members := map[uint32][]string{}
	for _, u := range s.Users {
		names.put(e.b, nameKey(u.Name), uint32(len(e.b)))
		ids.put(e.b, u.UID, uint32(len(e.b)))
		e.record(snapUser, func(e *encoder) {
			e.passwd(u.Passwd)
			e.ids(u.Groups)
		})
		for _, gid := range u.Groups {
			members[gid] = append(members[gid], u.Name)
		}
	}
	for _, g := range s.Groups {
		names.put(e.b, nameKey(g.Name), uint32(len(e.b)))
		ids.put(e.b, g.GID, uint32(len(e.b)))
		list := fitting(members[g.GID])
		e.record(snapGroup, func(e *encoder) { e.group(Group{g.Name, g.GID, list}) })
	}
	if e.err != nil {
		return nil, e.err
	}
	if len(e.b) > snapMax {
		return nil, xos.Errorf(xos.TooLarge, "snapshot of %s: %d bytes, at most %d", s.VO, len(e.b), snapMax)
	}
	h = e.b[:snapHeader]
	le := binary.LittleEndian
	le.PutUint32(h[8:], snapVersion)
	le.PutUint32(h[12:], uint32(len(e.b)))
	le.PutUint64(h[snapGen:], s.Generation)
	le.PutUint32(h[24:], uint32(len(s.Users)))
	le.PutUint32(h[28:], uint32(len(s.Groups)))
	le.PutUint32(h[32:], slots)
	le.PutUint32(h[36:], names.at)
	le.PutUint32(h[40:], ids.at)
	le.PutUint32(h[44:], uint32(len(s.VO)))
	copy(h[48:], s.VO)
	return e.b, nil
}

// check refuses what would answer for another VO, or twice for one id.
func (s Snapshot) check() error {
	vo := string(s.VO)
	if !xos.ValidName(vo) || xos.ReservedName(vo) {
		return xos.Errorf(xos.Invalid, "%.40q is no name for a VO", vo)
	}
	ids, names := map[uint32]bool{}, map[string]bool{}
	add := func(name string, id uint32) error {
		if ids[id] || names[name] {
			return xos.Errorf(xos.Conflict, "snapshot of %s: %s (%d) is there twice", vo, name, id)
		}
		ids[id], names[name] = true, true
		return nil
	}
	for _, u := range s.Users {
		if a, err := xos.ParseAccount(u.Name); err != nil || a.VO != s.VO || u.GID != u.UID {
			return xos.Errorf(xos.Invalid, "snapshot of %s: bad user %.80q (%d, %d)", vo, u.Name, u.UID, u.GID)
		}
		if err := add(u.Name, u.UID); err != nil {
			return err
		}
	}
	own := false
	for _, g := range s.Groups {
		if !ValidGroup(g.Name) || g.Name != vo && (len(g.Name) < len(vo) || g.Name[:len(vo)+1] != vo+":") {
			return xos.Errorf(xos.Invalid, "snapshot of %s: bad group %.80q", vo, g.Name)
		}
		if err := add(g.Name, g.GID); err != nil {
			return err
		}
		own = own || g.Name == vo && g.GID == s.GID
	}
	if !own {
		return xos.Errorf(xos.Invalid, "snapshot of %s: its own group is not %d", vo, s.GID)
	}
	return nil
}

// record appends a record; its length is known when fill has written it.
func (e *encoder) record(kind uint32, fill func(*encoder)) {
	e.u32(kind)
	e.u32(0)
	start := len(e.b)
	fill(e)
	if n := len(e.b) - start; n > maxBody {
		e.err = xos.Errorf(xos.TooLarge, "a record of %d bytes, at most %d", n, maxBody)
	}
	binary.LittleEndian.PutUint32(e.b[start-4:], uint32(len(e.b)-start))
}

// fitting cuts a list of members to what a message can hold.
func fitting(members []string) []string {
	size := 256 // of the other fields
	for i, m := range members {
		if size += 4 + len(m); size > maxBody || i == maxMembers {
			return members[:i]
		}
	}
	return members
}

// index is an open hash table in the file.
type index struct{ at, slots uint32 }

func (x index) put(file []byte, key, offset uint32) {
	slot := slotOf(key)
	for {
		e := file[x.at+(slot&(x.slots-1))*8:]
		if binary.LittleEndian.Uint32(e[4:]) == 0 {
			binary.LittleEndian.PutUint32(e, key)
			binary.LittleEndian.PutUint32(e[4:], offset)
			return
		}
		slot++
	}
}

func slotOf(key uint32) uint32 {
	h := key * snapMix
	return h ^ h>>16
}

func nameKey(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
