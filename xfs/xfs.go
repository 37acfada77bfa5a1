// Package xfs is the contract of XtreemFS, the grid's file system: a metadata
// and replica catalogue (MRC) that has the names, object storage devices (OSD)
// that have the data, and clients that speak to both. Its parts are
//
//   - xfs/frame: the length-prefixed binary frames of the hot paths;
//   - xfs/dir: the directory of volumes and storage (DIR);
//   - xfs/mrc: the metadata service, on infra/kv;
//   - xfs/osd: the storage service;
//   - xfs/client: striping, caches, retries: what is common to all users;
//   - xfs/fuse: the mount, of type fuse.xosfs;
//   - xfs/xfstest: the suites that every implementation passes.
//
// Access is decided on grid identity (account and VO groups), never on a
// local uid. Every 64 KiB block carries a CRC32C from writer to reader.
package xfs

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// BlockSize is what one checksum covers: bytes [n*BlockSize, (n+1)*BlockSize)
// of an object, or what of it exists.
const BlockSize = 64 << 10

// DefaultObjectSize is the size of a file's objects where the volume says
// nothing else; a multiple of BlockSize.
const DefaultObjectSize = 4 << 20

// MaxName is the longest file name, MaxTarget the longest symbolic link and
// MaxXattr the largest extended attribute value, in bytes.
const (
	MaxName   = 255
	MaxTarget = 4095
	MaxXattr  = 64 << 10
)

// Inode numbers a file within its volume; numbers are never used again.
type Inode uint64

// RootInode is every volume's root directory.
const RootInode Inode = 1

// FileID names a file's data in the grid.
type FileID struct {
	Volume xos.VolumeID
	Inode  Inode
}

// Attr is what stat shows. Times have nanoseconds. Mode is st_mode with type
// bits. Owner is an account ("alice@physics"), Group a VO group
// ("physics:higgs") or "" for the owner's private one.
type Attr struct {
	Inode               Inode
	Mode                uint32
	Nlink               uint32
	Size                int64
	Owner               string
	Group               string
	Rdev                uint32
	Atime, Mtime, Ctime time.Time
	// Version grows with every change of attributes or data size.
	Version uint64
}

// SetAttr says which attributes to change; nil fields stay.
type SetAttr struct {
	Mode         *uint32
	Owner, Group *string
	Size         *int64
	Atime, Mtime *time.Time
}

// Entry is a directory entry. Cookie continues a listing after it.
type Entry struct {
	Name   string
	Attr   Attr
	Cookie uint64
}

// Layout says where a file's objects are: object n is on Stripes[n % len] of
// each replica. There is one replica with one stripe for now; the fields are
// what striping and replication need.
type Layout struct {
	ObjectSize int64
	Replicas   []Replica
	// Epoch grows when the layout changes; an OSD refuses an older one.
	Epoch uint64
}

// Replica is one copy of a file.
type Replica struct {
	Stripes []Target
}

// Target is one OSD.
type Target struct {
	OSD     string // id
	Address string // host:port when the layout was given out
}

// Rights of a capability.
type Rights uint8

const (
	MayRead Rights = 1 << iota
	MayWrite
	MayDelete
)

// Capability lets its bearer use a file's objects. The MRC signs its canonical
// encoding (xfs/frame) with ed25519; an OSD needs only the public key. Node is
// the machine whose TLS certificate must present it.
type Capability struct {
	File      FileID
	Rights    Rights
	Node      xos.NodeID
	Account   string
	Epoch     uint64 // of the layout
	Expires   time.Time
	Signature []byte
}

// Opened is the answer to Open and Create.
type Opened struct {
	Attr       Attr
	Layout     Layout
	Capability Capability
}

// StatFS sums up a volume; sizes in bytes.
type StatFS struct {
	Total, Free  int64
	Files, Quota int64
}

// MRC is one volume seen by one client, whose identity the connection's TLS
// certificate gives: a user's delegated credential, which names the machine
// too. Errors have xos kinds; NotEmpty, NotDir and IsDir tell apart what the
// kinds do not (see ErrNotEmpty and its neighbours).
//
// Every method that changes something is durable (fsynced) when it returns
// and may be repeated by the client after a broken connection: req tells
// repetitions from new requests. Names are checked: 1 to MaxName bytes, no
// '/' and no NUL, not "." or "..".
type MRC interface {
	Lookup(ctx context.Context, parent Inode, name string) (Attr, error)
	Getattr(ctx context.Context, ino Inode) (Attr, error)
	// Setattr with a smaller Size truncates: the MRC records it first; the
	// client then tells the OSD.
	Setattr(ctx context.Context, req RequestID, ino Inode, set SetAttr) (Attr, error)
	Readlink(ctx context.Context, ino Inode) (string, error)
	// Readdir gives entries after a cookie (0: from the start), without "."
	// and "..", until max; done when there are no more.
	Readdir(ctx context.Context, ino Inode, after uint64, max int) (entries []Entry, done bool, err error)
	Statfs(ctx context.Context) (StatFS, error)

	// Create makes and opens a regular file; with exclusive an existing name
	// is xos.Exists, else it is opened as Open would.
	Create(ctx context.Context, req RequestID, parent Inode, name string, mode uint32, exclusive bool) (Opened, error)
	// Mknod makes an empty regular file, fifo, socket or, never, a device.
	Mknod(ctx context.Context, req RequestID, parent Inode, name string, mode uint32) (Attr, error)
	Mkdir(ctx context.Context, req RequestID, parent Inode, name string, mode uint32) (Attr, error)
	Symlink(ctx context.Context, req RequestID, parent Inode, name, target string) (Attr, error)
	Link(ctx context.Context, req RequestID, ino, parent Inode, name string) (Attr, error)
	// Unlink and a Rename over a name keep the data of a file that this
	// client has open (it says so by keep) until its Release.
	Unlink(ctx context.Context, req RequestID, parent Inode, name string, keep bool) error
	Rmdir(ctx context.Context, req RequestID, parent Inode, name string) error
	Rename(ctx context.Context, req RequestID, from Inode, name string, to Inode, newName string, flags RenameFlags, keep bool) error
	// Open gives a capability with these rights.
	Open(ctx context.Context, ino Inode, rights Rights) (Opened, error)
	// Flush records what writing did: size (never made smaller) and mtime.
	Flush(ctx context.Context, req RequestID, ino Inode, size int64, mtime time.Time) (Attr, error)
	// Release ends the keeping of an unlinked file; its objects are deleted.
	Release(ctx context.Context, req RequestID, ino Inode) error

	Getxattr(ctx context.Context, ino Inode, name string) ([]byte, error)
	Setxattr(ctx context.Context, req RequestID, ino Inode, name string, value []byte, flags int) error
	Listxattr(ctx context.Context, ino Inode) ([]string, error)
	Removexattr(ctx context.Context, req RequestID, ino Inode, name string) error
}

// RequestID makes a change repeatable: a client's random number in the high
// half and a counter in the low one. The MRC remembers the answers of recent
// ones per client.
type RequestID struct{ Client, Number uint64 }

// RenameFlags are those of renameat2(2).
type RenameFlags uint32

const (
	RenameNoReplace RenameFlags = 1 << iota
	RenameExchange
)

// OSD is an object storage device. Data beyond what was written reads as
// zeroes up to the size the MRC knows. All offsets are within one object.
type OSD interface {
	// Write puts data at off. sums holds one CRC32C for each block that data
	// touches, over the part of data within that block. The change is atomic
	// per block; it is durable after Sync. A full disk is xos.TooLarge and
	// leaves what was there.
	Write(ctx context.Context, c Capability, object uint64, off int64, data []byte, sums []uint32) error
	// Read gives up to n bytes (short at the object's end), block by block
	// with the stored checksums: sums as in Write when the range covers whole
	// blocks, and else computed by the OSD after verifying the whole block.
	// A block that fails its checksum is xos.Internal, never wrong data.
	Read(ctx context.Context, c Capability, object uint64, off int64, n int) (data []byte, sums []uint32, err error)
	// Truncate cuts the file at size: objects beyond go, the last is cut.
	Truncate(ctx context.Context, c Capability, size, objectSize int64) error
	// Sync makes all acknowledged writes of the file durable.
	Sync(ctx context.Context, c Capability) error
	// Delete removes all objects of the file; MayDelete.
	Delete(ctx context.Context, c Capability) error
	// Space gives total and free bytes.
	Space(ctx context.Context) (total, free int64, err error)
}

// What kinds do not tell apart; each wraps an *xos.Error.
var (
	ErrNotEmpty error = &xos.Error{Kind: xos.Conflict, Msg: "directory not empty"}
	ErrNotDir   error = &xos.Error{Kind: xos.Invalid, Msg: "not a directory"}
	ErrIsDir    error = &xos.Error{Kind: xos.Invalid, Msg: "is a directory"}
	ErrStale    error = &xos.Error{Kind: xos.NotFound, Msg: "file no longer exists"}
	ErrNoAttr   error = &xos.Error{Kind: xos.NotFound, Msg: "no such attribute"}
	ErrTooMany  error = &xos.Error{Kind: xos.TooLarge, Msg: "too many links"}
	ErrNameLong error = &xos.Error{Kind: xos.Invalid, Msg: "file name too long"}
	// ErrCorrupt is data that does not fit its checksum, on a disk or a wire.
	ErrCorrupt error = &xos.Error{Kind: xos.Internal, Msg: "data does not match its checksum"}
)
