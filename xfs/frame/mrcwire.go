package frame

import (
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Operations of an MRC.
const (
	opLookup Op = 0x10 + iota
	opGetattr
	opSetattr
	opReadlink
	opReaddir
	opStatfs
	opCreate
	opMknod
	opMkdir
	opSymlink
	opLink
	opUnlink
	opRmdir
	opRename
	opOpen
	opFlush
	opRelease
	opGetxattr
	opSetxattr
	opListxattr
	opRemovexattr
)

// Longer names than the contract allows are let through, up to a bound: it is
// the MRC that refuses them, with the right error.
const (
	maxName     = 4096
	maxTarget   = 8192
	maxXattr    = 2 * xfs.MaxXattr
	maxXattrs   = 4096
	maxStripes  = 1024
	maxReplicas = 64
	minEntry    = 4 + 8 + 8 + 4 + 4 + 8 + 4 + 4 + 4 + 3*12 + 8
)

// mrcArgs are the arguments of every request to an MRC: each operation uses
// some of them, and which is said in one place for both sides.
type mrcArgs struct {
	op     Op
	volume xos.VolumeID
	req    xfs.RequestID
	ino    xfs.Inode // or the parent
	name   string
	ino2   xfs.Inode
	name2  string // or a symbolic link's target
	mode   uint32 // or flags
	flag   bool   // exclusive or keep
	count  int    // max or flags
	cookie uint64
	size   int64
	mtime  time.Time
	rights xfs.Rights
	set    xfs.SetAttr
	value  []byte
}

func (m *mrcArgs) fields(c *coder) {
	str(c, &m.volume, maxVolume)
	switch m.op {
	case opSetattr, opCreate, opMknod, opMkdir, opSymlink, opLink, opUnlink, opRmdir,
		opRename, opFlush, opRelease, opSetxattr, opRemovexattr:
		c.u64(&m.req.Client)
		c.u64(&m.req.Number)
	}
	if m.op != opStatfs {
		c.u64((*uint64)(&m.ino))
	}
	switch m.op {
	case opLookup, opCreate, opMknod, opMkdir, opSymlink, opLink, opUnlink, opRmdir,
		opRename, opGetxattr, opSetxattr, opRemovexattr:
		str(c, &m.name, maxName)
	}
	switch m.op {
	case opSetattr:
		setAttr(c, &m.set)
	case opReaddir:
		c.u64(&m.cookie)
		c.integer(&m.count)
	case opCreate:
		c.u32(&m.mode)
		c.boolean(&m.flag)
	case opMknod, opMkdir:
		c.u32(&m.mode)
	case opSymlink:
		str(c, &m.name2, maxTarget)
	case opLink:
		c.u64((*uint64)(&m.ino2))
	case opUnlink:
		c.boolean(&m.flag)
	case opRename:
		c.u64((*uint64)(&m.ino2))
		str(c, &m.name2, maxName)
		c.u32(&m.mode)
		c.boolean(&m.flag)
	case opOpen:
		c.u8((*uint8)(&m.rights))
	case opFlush:
		c.size(&m.size)
		c.time(&m.mtime)
	case opSetxattr:
		c.bytes(&m.value, maxXattr)
		c.integer(&m.count)
	}
}

func setAttr(c *coder, s *xfs.SetAttr) {
	optional(c, &s.Mode, c.u32)
	optional(c, &s.Owner, func(p *string) { str(c, p, maxName) })
	optional(c, &s.Group, func(p *string) { str(c, p, maxName) })
	optional(c, &s.Size, c.i64)
	optional(c, &s.Atime, c.time)
	optional(c, &s.Mtime, c.time)
}

type attr struct{ *xfs.Attr }

func (m attr) fields(c *coder) {
	c.u64((*uint64)(&m.Inode))
	c.u32(&m.Mode)
	c.u32(&m.Nlink)
	c.size(&m.Size)
	str(c, &m.Owner, maxAccount)
	str(c, &m.Group, maxGroup)
	c.u32(&m.Rdev)
	c.time(&m.Atime)
	c.time(&m.Mtime)
	c.time(&m.Ctime)
	c.u64(&m.Version)
}

type layout struct{ *xfs.Layout }

func (m layout) fields(c *coder) {
	c.size(&m.ObjectSize)
	list(c, &m.Replicas, 4, maxReplicas, func(r *xfs.Replica) {
		list(c, &r.Stripes, 8, maxStripes, func(t *xfs.Target) {
			str(c, &t.OSD, maxAddress)
			str(c, &t.Address, maxAddress)
		})
	})
	c.u64(&m.Epoch)
}

type opened struct{ *xfs.Opened }

func (m opened) fields(c *coder) {
	attr{&m.Attr}.fields(c)
	layout{&m.Layout}.fields(c)
	capability{&m.Capability}.fields(c)
}

type text struct{ s string }

func (m *text) fields(c *coder) { str(c, &m.s, maxTarget) }

type blob struct{ b []byte }

func (m *blob) fields(c *coder) { c.bytes(&m.b, maxXattr) }

type names struct{ list []string }

func (m *names) fields(c *coder) {
	list(c, &m.list, 4, maxXattrs, func(s *string) { str(c, s, maxName) })
}

type entries struct {
	list []xfs.Entry
	done bool
}

func (m *entries) fields(c *coder) {
	list(c, &m.list, minEntry, MaxEntries, func(e *xfs.Entry) {
		str(c, &e.Name, xfs.MaxName)
		attr{&e.Attr}.fields(c)
		c.u64(&e.Cookie)
	})
	c.boolean(&m.done)
}

type statfs struct{ *xfs.StatFS }

func (m statfs) fields(c *coder) {
	c.size(&m.Total)
	c.size(&m.Free)
	c.size(&m.Files)
	c.size(&m.Quota)
}

// Encodings for records that keep what travels in frames, too.

// EncodeAttr appends the encoding of a.
func EncodeAttr(dst []byte, a *xfs.Attr) ([]byte, error) { return encode(dst, attr{a}) }

// DecodeAttr is the inverse of EncodeAttr.
func DecodeAttr(b []byte) (a xfs.Attr, err error) { return a, decode(b, attr{&a}) }

// EncodeLayout appends the encoding of l.
func EncodeLayout(dst []byte, l *xfs.Layout) ([]byte, error) { return encode(dst, layout{l}) }

// DecodeLayout is the inverse of EncodeLayout.
func DecodeLayout(b []byte) (l xfs.Layout, err error) { return l, decode(b, layout{&l}) }
