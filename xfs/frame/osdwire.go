package frame

import (
	"github.com/xtreemos/xos/xfs"
)

// Operations of an OSD.
const (
	opWrite Op = 0x40 + iota
	opRead
	opTruncate
	opSync
	opDelete
	opSpace
)

// maxSums is how many blocks MaxBulk bytes can touch.
const maxSums = MaxBulk/xfs.BlockSize + 1

type writeArgs struct {
	cap    xfs.Capability
	object uint64
	off    int64
	sums   []uint32
}

func (m *writeArgs) fields(c *coder) {
	capability{&m.cap}.fields(c)
	c.u64(&m.object)
	c.size(&m.off)
	list(c, &m.sums, 4, maxSums, c.u32)
}

type readArgs struct {
	cap    xfs.Capability
	object uint64
	off    int64
	n      int
}

func (m *readArgs) fields(c *coder) {
	capability{&m.cap}.fields(c)
	c.u64(&m.object)
	c.size(&m.off)
	c.integer(&m.n)
}

type readResult struct{ sums []uint32 }

func (m *readResult) fields(c *coder) { list(c, &m.sums, 4, maxSums, c.u32) }

type truncateArgs struct {
	cap              xfs.Capability
	size, objectSize int64
}

func (m *truncateArgs) fields(c *coder) {
	capability{&m.cap}.fields(c)
	c.size(&m.size)
	c.size(&m.objectSize)
}

// capArgs are those of Sync and Delete.
type capArgs struct{ cap xfs.Capability }

func (m *capArgs) fields(c *coder) { capability{&m.cap}.fields(c) }

type spaceResult struct{ total, free int64 }

func (m *spaceResult) fields(c *coder) {
	c.size(&m.total)
	c.size(&m.free)
}

type nothing struct{}

func (nothing) fields(*coder) {}
