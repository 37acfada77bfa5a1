package osd

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file is a file's blocks and its data file. Its locks are taken in the order
// syncing, write, mu.
type file struct {
	store *Store
	id    xfs.FileID
	users int // of Store.mu; a file in use is not let go

	loading sync.Mutex // held while the index is being read
	loaded  bool
	data    *os.File // set once, when loaded

	syncing sync.Mutex // held by whoever changes the index on disk
	write   sync.Mutex // held by whoever changes the index in memory

	// mu guards what follows, and is held shared while a slot is being read.
	mu     sync.RWMutex
	gone   bool
	failed error // the disk lost something: nothing goes on before a restart
	at     map[place]entry
	dirty  map[place]bool // entries that differ from the index on disk
	fresh  bool           // the data file's own name is not durable yet
	slots
}

// get opens a file and keeps it open until put. Without create, one that has
// no data is fs.ErrNotExist.
func (s *Store) get(id xfs.FileID, create bool) (*file, error) {
	if v := string(id.Volume); len(v) == 0 || len(v) > 3*xos.MaxName || strings.ContainsAny(v, "/@\x00") || v[0] == '.' {
		return nil, xos.Errorf(xos.Invalid, "%.80q cannot name a volume", v)
	}
	s.mu.Lock()
	f := s.files[id]
	if f == nil {
		if len(s.files) >= openFiles {
			s.evict()
		}
		f = &file{store: s, id: id}
		s.files[id] = f
	}
	f.users++
	s.mu.Unlock()
	if err := f.load(create); err != nil {
		s.put(f)
		return nil, err
	}
	return f, nil
}

func (s *Store) put(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	if f.users > 0 || f.loaded && !f.gone {
		return
	}
	if s.files[f.id] == f {
		delete(s.files, f.id)
	}
	if f.data != nil {
		f.data.Close()
	}
}

// evict lets go of some files that are at rest. Store.mu is held.
func (s *Store) evict() {
	n := 0
	for id, f := range s.files {
		if f.users > 0 || len(f.dirty) > 0 || len(f.freed) > 0 {
			continue
		}
		f.data.Close()
		delete(s.files, id)
		s.used.Add(-int64(len(f.free)) * xfs.BlockSize) // load makes them holes
		if n++; n == openFiles/8 {
			return
		}
	}
}

// load reads a file's index, once.
func (f *file) load(create bool) error {
	f.loading.Lock()
	defer f.loading.Unlock()
	if f.loaded {
		return nil
	}
	path := f.store.path(f.id)
	data, err := os.OpenFile(path, os.O_RDWR, 0)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh && create {
		data, err = f.create(path)
	}
	if err != nil {
		var known *xos.Error
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &known) {
			return err
		}
		return diskError(err)
	}
	at, err := f.store.places(f.id)
	if err == nil {
		f.mu.Lock()
		f.at, f.dirty, f.fresh = at, map[place]bool{}, fresh
		f.slots, err = foundSlots(data, at)
		f.mu.Unlock()
	}
	if err != nil {
		data.Close()
		return err
	}
	f.data, f.loaded = data, true
	return nil
}

func (f *file) create(path string) (*os.File, error) {
	if deleted, err := f.store.isDeleted(f.id); err != nil {
		return nil, err
	} else if deleted {
		return nil, fmt.Errorf("inode %d of %s: %w", f.id.Inode, f.id.Volume, errDeleted)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// errDeleted is said to who writes to a file that was deleted.
var errDeleted = &xos.Error{Kind: xos.NotFound, Msg: "the file was deleted", Err: xfs.ErrStale}

// usable reports why a file cannot be changed, if so. mu is held.
func (f *file) usable() error {
	if f.gone {
		return errDeleted
	}
	return f.failed
}

// readSlot reads and verifies a block. mu is held, shared at least.
func (f *file) readSlot(at place, e entry, buf []byte) ([]byte, error) {
	buf = buf[:e.length]
	switch _, err := f.data.ReadAt(buf, e.slot*xfs.BlockSize); {
	case errors.Is(err, io.EOF):
		return nil, f.corrupt(at)
	case err != nil:
		return nil, diskError(err)
	}
	if crc32.Checksum(buf, castagnoli) != e.sum {
		return nil, f.corrupt(at)
	}
	return buf, nil
}

func (f *file) corrupt(at place) error {
	return fmt.Errorf("volume %s, inode %d, object %d, block %d: %w", f.id.Volume, f.id.Inode, at.object, at.block, xfs.ErrCorrupt)
}
