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

	mu    sync.Mutex
	files map[xfs.FileID]*file
	used  int64 // bytes of slots in all data files
}

// openFiles bounds the files whose blocks are kept in memory.
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
	db, err := pebble.Open(filepath.Join(dir, "index"), &pebble.Options{Logger: quiet{}})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "opening the index: %w", err)
	}
	s := &Store{dir: dir, id: id, capacity: capacity, index: db, files: map[xfs.FileID]*file{}}
	if err := s.measure(); err != nil {
		db.Close()
		return nil, err
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

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
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

// measure sums up the data files.
func (s *Store) measure() error {
	return filepath.WalkDir(filepath.Join(s.dir, "data"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			s.used += slots(info.Size()) * xfs.BlockSize
		}
		return err
	})
}

func slots(size int64) int64 { return (size + xfs.BlockSize - 1) / xfs.BlockSize }

// ID is the OSD's name.
func (s *Store) ID() string { return s.id }

// Space gives total and free bytes.
func (s *Store) Space() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, 0, xos.Errorf(xos.Internal, "asking for the disk's space: %w", err)
	}
	total, free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	if s.capacity > 0 {
		s.mu.Lock()
		left := max(s.capacity-s.used, 0)
		s.mu.Unlock()
		total, free = s.capacity, min(left, free)
	}
	return total, free, nil
}

// reserve counts n more bytes, or refuses.
func (s *Store) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.capacity > 0 && s.used+n > s.capacity {
		return full()
	}
	s.used += n
	return nil
}

func (s *Store) unreserve(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

func full() error { return xos.Errorf(xos.TooLarge, "the storage is full") }

// Close syncs everything and closes the store.
func (s *Store) Close() error {
	errs := []error{s.SyncAll()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		errs = append(errs, f.data.Close())
	}
	return errors.Join(append(errs, s.index.Close())...)
}

// SyncAll makes all that was written durable.
func (s *Store) SyncAll() error {
	s.mu.Lock()
	var all []*file
	for _, f := range s.files {
		f.users++
		all = append(all, f)
	}
	s.mu.Unlock()
	var errs []error
	for _, f := range all {
		errs = append(errs, f.sync())
		s.put(f)
	}
	return errors.Join(errs...)
}
