// Package osd is the object storage device (OSD): file data on one disk.
//
// A file's objects are cut into blocks of xfs.BlockSize. Each block that
// exists is in a slot of the file's data file, and the index says which slot,
// how many bytes, and their CRC32C. A write puts its blocks into free slots
// and then moves the index; Sync makes first the data durable, then the index.
// A slot is used again only when no durable index entry leads to it any more.
// So at every moment, and whatever a crash loses, each block is the old or the
// new one, never a mixture; what was synced is never lost.
//
// What was written and not yet synced is lost when the process ends: clients
// keep it until their Sync has succeeded.
package osd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Store is the data of one OSD in a directory. It is safe for concurrent use;
// writes to one file happen one after another.
type Store struct {
	dir      string
	id       string
	capacity int64
	index    *pebble.DB
	used     atomic.Int64 // bytes of slots that take space

	mu    sync.Mutex // held only to find a file
	files map[xfs.FileID]*file
}

// openFiles is how many files' blocks are kept in memory before those at rest
// are let go.
const openFiles = 4096

// Open opens the store in dir, and makes it if there is none. capacity bounds
// the bytes it takes; 0: what the disk has.
func Open(dir string, capacity int64) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return nil, xos.Errorf(xos.Internal, "making the data directory: %w", err)
	}
	id, err := identity(filepath.Join(dir, "id"))
	if err != nil {
		return nil, err
	}
	db, err := pebble.Open(filepath.Join(dir, "index"), &pebble.Options{Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "opening the index: %w", err)
	}
	s := &Store{dir: dir, id: id, capacity: capacity, index: db, files: map[xfs.FileID]*file{}}
	if err := errors.Join(s.measure(), s.removeStrays(), s.forgetDeleted(time.Now())); err != nil {
		db.Close()
		return nil, xos.Errorf(xos.Internal, "opening the data: %w", err)
	}
	return s, nil
}

// quiet keeps Pebble's reports of routine work out of the log.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(xos.Errorf(xos.Internal, "the index: "+format, args...))
}

// identity reads or makes the OSD's name, which stays with its data.
func identity(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var b [8]byte
		rand.Read(b[:])
		data = []byte("osd-" + hex.EncodeToString(b[:]) + "\n")
		err = writeSynced(path, data)
	}
	if err != nil {
		return "", xos.Errorf(xos.Internal, "reading the OSD's name: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// writeSynced makes a file that is whole or not there.
func writeSynced(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ID is the OSD's name.
func (s *Store) ID() string { return s.id }

// margin is what of a disk stays free for the index, without which nothing
// could be deleted either.
func margin(disk int64) int64 { return min(disk/16, 256<<20) }

func (s *Store) disk() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, 0, xos.Errorf(xos.Internal, "asking for the disk's space: %w", err)
	}
	total, free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	return total, max(free-margin(total), 0), nil
}

// Space gives total and free bytes.
func (s *Store) Space() (total, free int64, err error) {
	total, free, err = s.disk()
	if err == nil && s.capacity > 0 {
		total, free = min(s.capacity, total), min(max(s.capacity-s.used.Load(), 0), free)
	}
	return total, free, err
}

// reserve counts n more bytes, or refuses.
func (s *Store) reserve(n int64) error {
	_, free, err := s.disk()
	if err != nil {
		return err
	}
	if used := s.used.Add(n); free < n || s.capacity > 0 && used > s.capacity {
		s.used.Add(-n)
		return full()
	}
	return nil
}

func full() error { return xos.Errorf(xos.TooLarge, "the storage is full") }

// diskError tells a full disk from a broken one.
func diskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return full()
	}
	return xos.Errorf(xos.Internal, "the disk: %w", err)
}

// Close syncs everything and closes the store; no call may be under way.
func (s *Store) Close() error {
	errs := []error{s.SyncAll()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if f.data != nil {
			errs = append(errs, f.data.Close())
		}
	}
	s.files = map[xfs.FileID]*file{}
	return errors.Join(append(errs, s.index.Close())...)
}
