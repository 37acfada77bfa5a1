package osd

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// part is what of a write or read falls into one block: bytes [from, to) of
// the block, which are [lo, hi) of the data.
type part struct {
	block    uint32
	from, to int
	lo, hi   int
}

// parts cuts the range [off, off+n) of an object at block borders.
func parts(off int64, n int) []part {
	var list []part
	for lo := 0; lo < n; {
		at := off + int64(lo)
		from := int(at % xfs.BlockSize)
		size := min(n-lo, xfs.BlockSize-from)
		list = append(list, part{uint32(at / xfs.BlockSize), from, from + size, lo, lo + size})
		lo += size
	}
	return list
}

// maxObject bounds offsets within an object.
const maxObject = 1 << 30

// Write puts data at off of an object; see xfs.OSD.
func (s *Store) Write(id xfs.FileID, object uint64, off int64, data []byte, sums []uint32) error {
	if off < 0 || off+int64(len(data)) > maxObject {
		return xos.Errorf(xos.Invalid, "a write at %d of %d bytes is outside any object", off, len(data))
	}
	list := parts(off, len(data))
	if len(sums) != len(list) {
		return xos.Errorf(xos.Invalid, "%d checksums for %d blocks", len(sums), len(list))
	}
	for i, p := range list {
		if crc32.Checksum(data[p.lo:p.hi], castagnoli) != sums[i] {
			return xos.Errorf(xos.Unavailable, "the data was damaged on its way: checksum of block %d", p.block)
		}
	}
	f, err := s.get(id, true)
	if err != nil {
		return err
	}
	defer s.put(f)
	f.write.Lock()
	defer f.write.Unlock()
	if f.gone {
		return xfs.ErrStale
	}
	slots, err := f.allocate(len(list))
	if err != nil {
		return err
	}
	changes := make(map[place]entry, len(list))
	if err := f.writeParts(object, list, slots, data, sums, changes); err != nil {
		f.giveBack(slots)
		return err
	}
	f.install(changes)
	return nil
}

// writeParts writes blocks to their slots and notes where they are. Whole
// blocks in neighbouring slots go to the disk in one piece.
func (f *file) writeParts(object uint64, list []part, slots []int64, data []byte, sums []uint32, changes map[place]entry) error {
	for i := 0; i < len(list); {
		p := list[i]
		at := place{object, p.block}
		f.mu.RLock()
		old, exists := f.at[at]
		f.mu.RUnlock()
		if p.from > 0 || exists && int(old.length) > p.to {
			e, err := f.mergePart(old, exists, p, slots[i], data)
			if err != nil {
				return err
			}
			changes[at] = e
			i++
			continue
		}
		j, hi := i, p.hi
		for {
			changes[place{object, list[j].block}] = entry{slot: slots[j], length: int32(list[j].to), sum: sums[j]}
			if j+1 == len(list) || slots[j+1] != slots[j]+1 || list[j].to != xfs.BlockSize || f.longer(object, list[j+1]) {
				break
			}
			j++
			hi = list[j].hi
		}
		if _, err := f.data.WriteAt(data[p.lo:hi], slots[i]*xfs.BlockSize); err != nil {
			return diskError(err)
		}
		i = j + 1
	}
	return nil
}

// longer reports whether a block has bytes behind the part.
func (f *file) longer(object uint64, p part) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	old, ok := f.at[place{object, p.block}]
	return ok && int(old.length) > p.to
}

// mergePart writes a block that is partly old, partly new.
func (f *file) mergePart(old entry, exists bool, p part, slot int64, data []byte) (entry, error) {
	var mem [xfs.BlockSize]byte
	length := p.to
	if exists {
		f.mu.RLock()
		_, err := f.readSlot(old, mem[:])
		f.mu.RUnlock()
		if err != nil {
			return entry{}, err
		}
		length = max(length, int(old.length))
	}
	copy(mem[p.from:p.to], data[p.lo:p.hi])
	block := mem[:length]
	if _, err := f.data.WriteAt(block, slot*xfs.BlockSize); err != nil {
		return entry{}, diskError(err)
	}
	return entry{slot: slot, length: int32(length), sum: crc32.Checksum(block, castagnoli)}, nil
}

// Truncate cuts the file at size.
func (s *Store) Truncate(id xfs.FileID, size, objectSize int64) error {
	if size < 0 || objectSize < xfs.BlockSize || objectSize > maxObject || objectSize%xfs.BlockSize != 0 {
		return xos.Errorf(xos.Invalid, "cutting at %d, objects of %d", size, objectSize)
	}
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.put(f)
	f.write.Lock()
	defer f.write.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	last := place{uint64(size / objectSize), uint32(size % objectSize / xfs.BlockSize)}
	keep := int(size % xfs.BlockSize)
	for p, e := range f.at {
		switch {
		case p.object < last.object || p.object == last.object && p.block < last.block:
		case p == last && keep > 0:
			if int(e.length) <= keep {
				continue
			}
			var mem [xfs.BlockSize]byte
			block, err := f.readSlot(e, mem[:])
			if err != nil {
				return err
			}
			// The slot stays: its beginning is what is left.
			f.at[p] = entry{slot: e.slot, length: int32(keep), sum: crc32.Checksum(block[:keep], castagnoli), durable: e.durable}
			f.dirty[p] = true
		default:
			f.forget(p, -1)
			delete(f.at, p)
			f.dirty[p] = true
		}
	}
	return nil
}

// Sync makes what was written to a file durable.
func (s *Store) Sync(id xfs.FileID) error {
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.put(f)
	return f.sync()
}

func (f *file) sync() error {
	f.write.Lock()
	defer f.write.Unlock()
	if len(f.dirty) == 0 || f.gone {
		return nil
	}
	if err := unix.Fdatasync(int(f.data.Fd())); err != nil {
		return diskError(err)
	}
	if f.fresh {
		dir := filepath.Dir(f.data.Name())
		if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
			return diskError(err)
		}
	}
	batch := f.store.index.NewBatch()
	defer batch.Close()
	for p := range f.dirty {
		var err error
		if e, ok := f.at[p]; ok {
			err = batch.Set(f.key(p), e.encode(), nil)
		} else {
			err = batch.Delete(f.key(p), nil)
		}
		if err != nil {
			return xos.Errorf(xos.Internal, "writing the index: %w", err)
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return diskError(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.dirty {
		if e, ok := f.at[p]; ok {
			e.durable = true
			f.at[p] = e
		}
	}
	f.dirty, f.fresh = map[place]bool{}, false
	f.free = append(f.free, f.freed...)
	f.freed = nil
	return nil
}

// Delete removes a file: first what leads to its data, then the data.
func (s *Store) Delete(id xfs.FileID) error {
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f.write.Lock()
	defer f.write.Unlock()
	p := prefix(id)
	end := append(append([]byte{}, p...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	if err := s.index.DeleteRange(p, end, pebble.Sync); err != nil {
		s.put(f)
		return xos.Errorf(xos.Internal, "deleting from the index: %w", err)
	}
	err = os.Remove(f.data.Name())
	f.mu.Lock()
	f.gone = true
	f.at, f.dirty = map[place]entry{}, map[place]bool{}
	size := f.next * xfs.BlockSize
	f.mu.Unlock()
	s.mu.Lock()
	delete(s.files, id)
	s.used -= size
	s.mu.Unlock()
	// Readers that found the file before may still hold its descriptor.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	return nil
}
