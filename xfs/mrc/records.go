package mrc

import (
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
)

// Type bits of st_mode (inode(7)).
const (
	modeType    = 0o170000
	modeSocket  = 0o140000
	modeSymlink = 0o120000
	modeFile    = 0o100000
	modeDir     = 0o040000
	modeFIFO    = 0o010000
	modeBits    = 0o7777
)

// inode is a file's record.
type inode struct {
	Mode    uint32    `json:"m"`
	Nlink   uint32    `json:"l"`
	Size    int64     `json:"s,omitempty"`
	Owner   string    `json:"o"`
	Group   string    `json:"g,omitempty"`
	Atime   int64     `json:"a"`
	Mtime   int64     `json:"t"`
	Ctime   int64     `json:"c"`
	Version uint64    `json:"v"`
	Target  []byte    `json:"target,omitempty"` // of a symbolic link; any bytes
	Parent  xfs.Inode `json:"p,omitempty"`      // of a directory
	OSD     string    `json:"osd,omitempty"`    // of a regular file
	Object  int64     `json:"size,omitempty"`   // object size
	Epoch   uint64    `json:"e,omitempty"`      // of the layout
}

// bump makes the version greater. A directory's is a time, as is the note of
// what changed in it: the later of the two counts.
func (n *inode) bump(now int64) {
	n.Version++
	if n.isDir() {
		n.Version = max(n.Version, uint64(now))
	}
}

func (n inode) isDir() bool { return n.Mode&modeType == modeDir }

// dirent is a directory entry's record: the name is in the key, for names are
// any bytes, and the value is the inode number.
type dirent struct {
	Inode xfs.Inode
	Name  string
}

// tx is a transaction on one volume. Its keys, below "xfs/v/VOLUME/":
//
//	next            the inode numbers given out
//	i INODE         inode
//	t INODE         a directory's mtime, written blindly by every change in
//	                it, so that changes in one directory do not conflict
//	d INODE HASH NAME  dirent
//	x INODE NAME    extended attribute
//	o INODE         orphan: unlinked, but open somewhere; since when
//	r CLIENT NUMBER reply to a request
//	g INODE         garbage: objects to delete
type tx struct {
	kv.Txn
	volume xos.VolumeID
}

func (x tx) key(kind byte, parts ...any) []byte {
	k := append([]byte("xfs/v/"), x.volume...)
	k = append(k, '/', kind)
	for _, p := range parts {
		switch p := p.(type) {
		case xfs.Inode:
			k = binary.BigEndian.AppendUint64(k, uint64(p))
		case uint64:
			k = binary.BigEndian.AppendUint64(k, p)
		case string:
			k = append(k, p...)
		}
	}
	return k
}

// nameHash orders a directory: a listing continues after it. Small values are
// kept free for "." and "..".
func nameHash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return max(h.Sum64()>>1, 16)
}

func (x tx) direntKey(dir xfs.Inode, name string) []byte {
	return x.key('d', dir, nameHash(name), name)
}

func get[T any](x tx, key []byte) (v T, ok bool, err error) {
	data, ok, err := x.Get(key)
	if err != nil || !ok {
		return v, false, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, false, xos.Errorf(xos.Internal, "reading a record of volume %s: %w", x.volume, err)
	}
	return v, true, nil
}

func put(x tx, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return xos.Errorf(xos.Internal, "encoding a record: %w", err)
	}
	return x.Put(key, data)
}

func (x tx) inode(i xfs.Inode) (inode, bool, error) { return get[inode](x, x.key('i', i)) }
func (x tx) put(i xfs.Inode, n inode) error         { return put(x, x.key('i', i), n) }

// need gives an inode that must exist.
func (x tx) need(i xfs.Inode) (inode, error) {
	n, ok, err := x.inode(i)
	if err == nil && !ok {
		err = xfs.ErrStale
	}
	return n, err
}

// directory gives an inode that must be a directory.
func (x tx) directory(i xfs.Inode) (inode, error) {
	n, err := x.need(i)
	if err == nil && !n.isDir() {
		err = xfs.ErrNotDir
	}
	return n, err
}

func (x tx) dirent(dir xfs.Inode, name string) (dirent, bool, error) {
	value, ok, err := x.Get(x.direntKey(dir, name))
	if err != nil || !ok {
		return dirent{}, false, err
	}
	ino, err := x.direntInode(value)
	return dirent{ino, name}, err == nil, err
}

func (x tx) direntInode(value []byte) (xfs.Inode, error) {
	if len(value) != 8 {
		return 0, xos.Errorf(xos.Internal, "a directory entry of volume %s is malformed", x.volume)
	}
	return xfs.Inode(binary.BigEndian.Uint64(value)), nil
}

// touch notes a change in a directory.
func (x tx) touch(dir xfs.Inode, now int64) error { return put(x, x.key('t', dir), now) }

// fold takes the note of changes in a directory back into its own record,
// whose mtime the caller sets; the version still grows.
func (x tx) fold(dir xfs.Inode, n *inode) error {
	changed, ok, err := get[int64](x, x.key('t', dir))
	if err != nil || !ok {
		return err
	}
	n.Version = max(n.Version, uint64(changed))
	return x.Delete(x.key('t', dir))
}

// nanos is a time as records hold it, within the years 1678 to 2261.
func nanos(t time.Time) int64 {
	switch y := t.UTC().Year(); {
	case y <= 1677:
		return math.MinInt64
	case y >= 2262:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// isEmpty reports whether a directory has no entries; the range is in the
// transaction's read set, so one that appears meanwhile is a conflict.
func (x tx) isEmpty(dir xfs.Inode) (bool, error) {
	empty := true
	prefix := x.key('d', dir)
	err := x.Range(prefix, kv.PrefixEnd(prefix), func(_, _ []byte) (bool, error) {
		empty = false
		return false, nil
	})
	return empty, err
}

// attr gives an inode as stat shows it.
func (x tx) attr(i xfs.Inode, n inode) (xfs.Attr, error) {
	if n.isDir() {
		changed, ok, err := get[int64](x, x.key('t', i))
		if err != nil {
			return xfs.Attr{}, err
		}
		if ok {
			n.Mtime, n.Ctime = changed, max(n.Ctime, changed)
			n.Version = max(n.Version, uint64(changed))
		}
	}
	size := n.Size
	if n.Mode&modeType == modeSymlink {
		size = int64(len(n.Target))
	}
	return xfs.Attr{
		Inode: i, Mode: n.Mode, Nlink: n.Nlink, Size: size, Owner: n.Owner, Group: n.Group,
		Atime: time.Unix(0, n.Atime), Mtime: time.Unix(0, n.Mtime), Ctime: time.Unix(0, n.Ctime), Version: n.Version,
	}, nil
}

func (x tx) layout(n inode) xfs.Layout {
	return xfs.Layout{ObjectSize: n.Object, Epoch: n.Epoch, Replicas: []xfs.Replica{{Stripes: []xfs.Target{{OSD: n.OSD}}}}}
}
