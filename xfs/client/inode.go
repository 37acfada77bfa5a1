package client

import (
	"sync"
	"time"

	"github.com/xtreemos/xos/xfs"
)

// inode is what the client knows of one file: as long as its user has
// references (Lookup … Forget) or it is open or has data not yet durable.
type inode struct {
	c   *Client
	ino xfs.Inode

	lookups uint64 // of Client.mu
	opens   int    // of Client.mu: Files, and opens under way
	busy    int    // of Client.mu: other uses under way

	link sync.RWMutex // held for opening, exclusively for unlinking
	gate sync.RWMutex // held for reading, writing; exclusively for truncating

	mu   sync.Mutex
	cond *sync.Cond // of mu: a chunk's write has ended
	attr xfs.Attr   // latest of the MRC that is known
	seen time.Time  // when it was
	told uint64     // Version last given to the user
	// cached is the Version that data given out belongs to: what the user
	// has cached is right as long as the file has this version.
	cached uint64
	kept   bool // unlinked, and kept for us

	layout xfs.Layout
	caps   []xfs.Capability

	size    int64     // with what was written here
	mtime   time.Time // of the last write
	unsaid  bool      // size and mtime are not yet at the MRC
	writes  uint64    // counts them
	ackEnd  int64     // end of data that the OSD has
	chunks  map[int64]*chunk
	fetches map[int64]*fetch
	readers map[*reader]struct{}

	uncut   bool // the OSD is yet to be cut, at:
	cut     int64
	cutting sync.Mutex // one cutStorage at a time; after gate
	syncing sync.Mutex // one sync at a time; before gate
	saying  sync.Mutex // one MRC.Flush at a time
	dirtied time.Time  // since when something is not yet written
	acked   time.Time  // since when something is not yet synced
	working bool       // background work is under way

	failures uint64 // counts failed write-backs
	failure  error  // the last one
}

func newInode(c *Client, ino xfs.Inode) *inode {
	in := &inode{c: c, ino: ino}
	in.cond = sync.NewCond(&in.mu)
	return in
}

// hold finds or makes an inode; done must follow.
func (c *Client) hold(ino xfs.Inode) *inode {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.at(ino)
	in.busy++
	return in
}

func (c *Client) at(ino xfs.Inode) *inode {
	in := c.inodes[ino]
	if in == nil {
		in = newInode(c, ino)
		c.inodes[ino] = in
	}
	return in
}

func (c *Client) done(in *inode) {
	c.mu.Lock()
	in.busy--
	c.tidy(in)
	c.mu.Unlock()
}

func (c *Client) tidy(in *inode) {
	if _, active := c.active[in]; in.lookups == 0 && in.opens == 0 && in.busy == 0 && !active {
		delete(c.inodes, in.ino)
	}
}

// Forget takes back n references.
func (c *Client) Forget(ino xfs.Inode, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in := c.inodes[ino]; in != nil {
		in.lookups -= min(n, in.lookups)
		c.tidy(in)
	}
}

// refer counts a reference and gives the attributes to show.
func (c *Client) refer(attr xfs.Attr, own bool) xfs.Attr {
	c.mu.Lock()
	in := c.at(attr.Inode)
	in.lookups++
	c.mu.Unlock()
	return in.show(attr, own)
}

// Refer counts a reference to a directory entry's file, as Lookup does.
func (c *Client) Refer(attr xfs.Attr) xfs.Attr { return c.refer(attr, false) }

// show takes in attributes from the MRC and gives those to show.
func (in *inode) show(attr xfs.Attr, own bool) xfs.Attr {
	in.mu.Lock()
	foreign := in.adopt(attr, own)
	attr = in.visible()
	in.told = attr.Version
	in.mu.Unlock()
	if foreign {
		in.c.deps.Changed(in.ino)
	}
	return attr
}

// adopt takes in attributes from the MRC. Own tells that they answer a change
// by this client: if the version grew by one, nobody else changed the file.
// It reports whether cached data has become wrong; mu is held.
func (in *inode) adopt(attr xfs.Attr, own bool) (foreign bool) {
	if attr.Version < in.attr.Version {
		return false // overtaken by a later answer
	}
	mine := attr.Version == in.attr.Version || own && attr.Version == in.attr.Version+1
	switch {
	case in.cached == 0:
	case mine && in.cached == in.attr.Version:
		in.cached = attr.Version
	case !mine:
		in.cached = 0
		in.fetches = nil
		foreign = true
	}
	// Other changes than to the data leave size and time of writing alone.
	if !mine && (attr.Size != in.attr.Size || !attr.Mtime.Equal(in.attr.Mtime)) {
		in.overtaken()
	}
	in.attr, in.seen = attr, time.Now()
	if in.unsaid {
		in.size = max(in.size, attr.Size)
	} else {
		in.size = attr.Size
	}
	return foreign
}

// visible is the attributes with what was written here; mu is held.
func (in *inode) visible() xfs.Attr {
	attr := in.attr
	attr.Size = in.size
	if in.unsaid {
		attr.Mtime, attr.Ctime = in.mtime, in.mtime
	}
	return attr
}
