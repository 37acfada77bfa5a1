package osd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// place names a block of a file: its object and its number in it.
type place struct {
	object uint64
	block  uint32
}

// entry is where a block is.
type entry struct {
	slot    int64
	length  int32
	sum     uint32
	durable bool // the index on disk leads here
}

// file is a file's blocks and its data file.
type file struct {
	store *Store
	id    xfs.FileID
	data  *os.File
	users int // of the store's lock; a file in use is not closed

	// write is held by whoever changes the file, sync included; mu guards
	// what follows, and is held shared while a slot is being read.
	write sync.Mutex
	mu    sync.RWMutex
	gone  bool
	at    map[place]entry
	next  int64          // slots from here on were never used
	free  []int64        // slots that nothing leads to, durably
	freed []int64        // slots that the index on disk still leads to
	dirty map[place]bool // entries that differ from the index on disk
	fresh bool           // the data file's own name is not durable yet
}

func (s *Store) path(id xfs.FileID) string {
	return filepath.Join(s.dir, "data", fmt.Sprintf("%02x", byte(id.Inode)), fmt.Sprintf("%s@%x", id.Volume, uint64(id.Inode)))
}

// prefix of a file's index keys; the volume's length makes it unambiguous.
func prefix(id xfs.FileID) []byte {
	k := []byte{'b', byte(len(id.Volume))}
	k = append(k, id.Volume...)
	return binary.BigEndian.AppendUint64(k, uint64(id.Inode))
}

func (f *file) key(p place) []byte {
	k := binary.BigEndian.AppendUint64(prefix(f.id), p.object)
	return binary.BigEndian.AppendUint32(k, p.block)
}

func (e entry) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.slot))
	b = binary.BigEndian.AppendUint32(b, uint32(e.length))
	return binary.BigEndian.AppendUint32(b, e.sum)
}

// get opens a file and keeps it open until put. Without create, one that has
// no data is fs.ErrNotExist.
func (s *Store) get(id xfs.FileID, create bool) (*file, error) {
	if len(id.Volume) == 0 || len(id.Volume) > 3*xos.MaxName || filepath.Base(string(id.Volume)) != string(id.Volume) || id.Volume[0] == '.' {
		return nil, xos.Errorf(xos.Invalid, "%.80q cannot name a volume", id.Volume)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[id]; f != nil {
		f.users++
		return f, nil
	}
	f, err := s.load(id, create)
	if err != nil {
		return nil, err
	}
	if len(s.files) >= openFiles {
		s.evict()
	}
	f.users = 1
	s.files[id] = f
	return f, nil
}

func (s *Store) put(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
}

// evict closes some files that are clean and not in use.
func (s *Store) evict() {
	n := 0
	for id, f := range s.files {
		if f.users == 0 && len(f.dirty) == 0 {
			f.data.Close()
			delete(s.files, id)
			if n++; n == openFiles/8 {
				return
			}
		}
	}
}

// load reads a file's index. Slots that it does not lead to are free: what an
// unsynced write left there is nobody's.
func (s *Store) load(id xfs.FileID, create bool) (*file, error) {
	path := s.path(id)
	data, err := os.OpenFile(path, os.O_RDWR, 0)
	fresh := false
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, diskError(err)
		}
		data, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		fresh = true
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, diskError(err)
	}
	f := &file{store: s, id: id, data: data, at: map[place]entry{}, dirty: map[place]bool{}, fresh: fresh}
	if err := f.readIndex(); err != nil {
		data.Close()
		return nil, err
	}
	return f, nil
}

func (f *file) readIndex() error {
	info, err := f.data.Stat()
	if err != nil {
		return diskError(err)
	}
	f.next = slots(info.Size())
	p := prefix(f.id)
	end := append([]byte{}, p...)
	end = binary.BigEndian.AppendUint64(end, ^uint64(0))
	it, err := f.store.index.NewIter(&pebble.IterOptions{LowerBound: p, UpperBound: append(end, 0xff, 0xff, 0xff, 0xff, 0xff)})
	if err != nil {
		return xos.Errorf(xos.Internal, "reading the index: %w", err)
	}
	defer it.Close()
	used := map[int64]bool{}
	for ok := it.First(); ok; ok = it.Next() {
		key, v := it.Key(), it.Value()
		if len(key) != len(p)+12 || len(v) != 16 {
			return xos.Errorf(xos.Internal, "the index of file %v is malformed", f.id)
		}
		at := place{binary.BigEndian.Uint64(key[len(p):]), binary.BigEndian.Uint32(key[len(p)+8:])}
		e := entry{slot: int64(binary.BigEndian.Uint64(v)), length: int32(binary.BigEndian.Uint32(v[8:])), sum: binary.BigEndian.Uint32(v[12:]), durable: true}
		f.at[at] = e
		used[e.slot] = true
		f.next = max(f.next, e.slot+1)
	}
	for slot := f.next - 1; slot >= 0; slot-- {
		if !used[slot] {
			f.free = append(f.free, slot)
		}
	}
	return it.Error()
}

// allocate gives n slots, in a row where there are such. The write lock is
// held.
func (f *file) allocate(n int) ([]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]int64, 0, n)
	if len(f.free) >= n {
		cut := len(f.free) - n
		list = append(list, f.free[cut:]...)
		f.free = f.free[:cut]
		sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
		return list, nil
	}
	if err := f.store.reserve(int64(n) * xfs.BlockSize); err != nil {
		return nil, err
	}
	for range n {
		list = append(list, f.next)
		f.next++
	}
	return list, nil
}

// giveBack returns slots that were allocated and never led to.
func (f *file) giveBack(list []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, list...)
}

// install moves the index in memory to new places. The write lock is held.
func (f *file) install(changes map[place]entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, e := range changes {
		f.forget(p, e.slot)
		f.at[p] = e
		f.dirty[p] = true
	}
}

// forget frees the slot of a block that gets another or goes; keep is a slot
// that stays in use.
func (f *file) forget(p place, keep int64) {
	old, ok := f.at[p]
	if !ok || old.slot == keep {
		return
	}
	if old.durable {
		f.freed = append(f.freed, old.slot)
	} else {
		f.free = append(f.free, old.slot)
	}
}

// readSlot reads and verifies a block. mu is held, shared at least.
func (f *file) readSlot(e entry, buf []byte) ([]byte, error) {
	buf = buf[:e.length]
	if _, err := f.data.ReadAt(buf, e.slot*xfs.BlockSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, diskError(err)
	} else if err != nil {
		return nil, corrupt(f.id)
	}
	if crc32.Checksum(buf, castagnoli) != e.sum {
		return nil, corrupt(f.id)
	}
	return buf, nil
}

func corrupt(id xfs.FileID) error {
	return fmt.Errorf("inode %d of volume %s: %w", id.Inode, id.Volume, xfs.ErrCorrupt)
}

// diskError tells a full disk from a broken one.
func diskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return full()
	}
	return xos.Errorf(xos.Internal, "the disk: %w", err)
}
