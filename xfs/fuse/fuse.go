// Package fuse mounts a volume: XtreemFS's client behind the kernel's FUSE
// protocol, as a file system of type fuse.xosfs.
//
// The kernel checks permission bits (default_permissions) on owners and groups
// as this mount maps them; the metadata service checks again, by grid
// identity. Files never carry a local uid: the mount's account appears as its
// local uid, VO groups as their local gids, everybody else as nobody.
//
// Attributes and names may be up to a second old when another machine changes
// them, and a name that was not there may be missing for another 20 ms; what
// this machine changes is seen at once. Opening a file asks anew, so what was
// closed elsewhere before is what is read (close-to-open). Locks
// are the kernel's: they exclude this machine's processes from each other,
// and not yet those of another.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
)

// Nobody is the id shown for who has no local id here.
const Nobody = 65534

// Identity maps grid names to local ids.
type Identity struct {
	Account  string            // whose mount this is, "alice@physics"
	UID, GID uint32            // hers
	Groups   map[string]uint32 // VO groups: "physics:higgs" → gid
}

// ttl is for how long the kernel may use names and attributes without asking.
const ttl = time.Second

// absent is for how long it may take a name to be missing without asking.
// Programs look for a missing name many times in a row: systemd asks for
// ~/.config and ~/.local some 150 times when a user's manager starts. It is
// shorter than the time in which one machine can make the file and get word to
// this one that it is there, by a job or a login.
const absent = 20 * time.Millisecond

// FS answers the kernel. It implements go-fuse's RawFileSystem.
type FS struct {
	gofuse.RawFileSystem // what is not implemented is refused
	client               *client.Client
	id                   Identity
	gids                 map[uint32]string
	log                  *slog.Logger
	server               *gofuse.Server

	mu      sync.Mutex
	next    uint64
	handles map[uint64]*client.File
	dirs    map[uint64]*listing
}

// New makes a file system over a client.
func New(c *client.Client, id Identity, log *slog.Logger) *FS {
	fs := &FS{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(), client: c, id: id, log: log,
		gids: map[uint32]string{}, handles: map[uint64]*client.File{}, dirs: map[uint64]*listing{},
	}
	for name, gid := range id.Groups {
		fs.gids[gid] = name
	}
	return fs
}

// Mount mounts the volume on dir. Serve on the server must be running for the
// mount to answer; WaitMount tells when it does.
func Mount(fs *FS, volume xos.VolumeID, dir string) (*gofuse.Server, error) {
	s, err := gofuse.NewServer(fs, dir, &gofuse.MountOptions{
		FsName: "xos:" + string(volume), Name: "xosfs",
		AllowOther: true, Options: []string{"default_permissions"},
		DirectMountStrict: true, DirectMountFlags: syscall.MS_NOSUID | syscall.MS_NODEV,
		MaxWrite: 1 << 20, MaxReadAhead: 1 << 20, MaxBackground: 64,
		// What the kernel has cached is dropped when this file system says so.
		ExplicitDataCacheControl: true,
	})
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "mounting %s on %s: %w", volume, dir, err)
	}
	fs.server = s
	// A file that somebody else changed: the kernel's pages are old.
	fs.client.SetChanged(func(ino xfs.Inode) { go s.InodeNotify(uint64(ino), 0, 0) })
	return s, nil
}

func (fs *FS) String() string { return "xosfs" }

// background is the context of the kernel's requests. An interrupted request
// goes on: what it changes must not stay half done; but it no longer waits for
// a server that is away once its process is being killed.
func (fs *FS) context(cancel <-chan struct{}, pid uint32) context.Context {
	return client.WithImpatience(context.Background(), cancel, func() bool { return dying(pid) })
}

// dying reports whether a process has a fatal signal pending, or is gone.
func dying(pid uint32) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	return pendingKill(data)
}

// errno is the one table from errors to what the kernel is told.
func errno(err error) gofuse.Status {
	switch {
	case err == nil:
		return gofuse.OK
	case errors.Is(err, client.ErrInterrupted):
		return gofuse.EINTR
	case errors.Is(err, client.ErrFileTooLarge):
		return gofuse.Status(syscall.EFBIG)
	case errors.Is(err, xfs.ErrNotEmpty):
		return gofuse.Status(syscall.ENOTEMPTY)
	case errors.Is(err, xfs.ErrNotDir):
		return gofuse.ENOTDIR
	case errors.Is(err, xfs.ErrIsDir):
		return gofuse.EISDIR
	case errors.Is(err, xfs.ErrStale):
		return gofuse.Status(syscall.ESTALE)
	case errors.Is(err, xfs.ErrNoAttr):
		return gofuse.ENOATTR
	case errors.Is(err, xfs.ErrTooMany):
		return gofuse.Status(syscall.EMLINK)
	case errors.Is(err, xfs.ErrNameLong):
		return gofuse.Status(syscall.ENAMETOOLONG)
	}
	switch xos.KindOf(err) {
	case xos.NotFound:
		return gofuse.ENOENT
	case xos.Exists:
		return gofuse.Status(syscall.EEXIST)
	case xos.Permission, xos.Expired:
		return gofuse.EACCES
	case xos.Invalid:
		return gofuse.EINVAL
	case xos.NotSupported:
		return gofuse.Status(syscall.EOPNOTSUPP)
	case xos.TooLarge:
		return gofuse.Status(syscall.ENOSPC)
	case xos.Conflict:
		return gofuse.EAGAIN
	}
	return gofuse.EIO
}

// status is errno, with what is nobody's ordinary mistake in the log.
func (fs *FS) status(op string, ino uint64, err error) gofuse.Status {
	s := errno(err)
	if s == gofuse.EIO {
		fs.log.Error("a request failed", "op", op, "inode", ino, "error", err)
	}
	return s
}

// attr fills in what the kernel shows.
func (fs *FS) attr(a xfs.Attr, out *gofuse.Attr) {
	out.Ino = uint64(a.Inode)
	out.Size = uint64(a.Size)
	out.Blocks = (out.Size + 511) / 512
	out.Blksize = 64 << 10
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Rdev = a.Rdev
	at, mt, ct := a.Atime, a.Mtime, a.Ctime
	out.SetTimes(&at, &mt, &ct)
	out.Uid, out.Gid = Nobody, Nobody
	if a.Owner == fs.id.Account {
		out.Uid = fs.id.UID
		if a.Group == "" {
			out.Gid = fs.id.GID
		}
	}
	if gid, ok := fs.id.Groups[a.Group]; ok && a.Group != "" {
		out.Gid = gid
	}
}

func (fs *FS) entry(a xfs.Attr, out *gofuse.EntryOut) {
	out.NodeId = uint64(a.Inode)
	fs.attr(a, &out.Attr)
	out.SetEntryTimeout(ttl)
	out.SetAttrTimeout(ttl)
}

func (fs *FS) hold(f *client.File) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.next++
	fs.handles[fs.next] = f
	return fs.next
}

func (fs *FS) file(fh uint64) *client.File {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.handles[fh]
}
