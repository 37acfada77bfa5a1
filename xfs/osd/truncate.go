package osd

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Truncate cuts the file at size. It is durable at once: the metadata service
// has noted the size, and what was cut off must not come back as the content
// of what is later beyond it.
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
	f.syncing.Lock()
	defer f.syncing.Unlock()
	last := place{uint64(size / objectSize), uint32(size % objectSize / xfs.BlockSize)}
	keep := int32(size % xfs.BlockSize)
	if f.replaces(last, keep) {
		// The index on disk leads to an older and perhaps longer block: it
		// must lead to the present one before that is cut.
		if err := s.sync([]*file{f}); err != nil {
			return err
		}
	}
	f.write.Lock()
	defer f.write.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	return f.cutAt(last, keep)
}

// replaces reports whether the block to be cut is to replace one on disk.
func (f *file) replaces(last place, keep int32) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e := f.at[last]
	return e.length > keep && e.indexed && !e.durable
}

// cutAt removes what is behind; all locks are held.
func (f *file) cutAt(last place, keep int32) error {
	batch := f.store.index.NewBatch()
	defer batch.Close()
	changed := map[place]entry{}
	var removed []place
	for p, e := range f.at {
		switch {
		case p.object < last.object || p.object == last.object && p.block < last.block:
		case p == last && keep > 0:
			if e.length <= keep {
				continue
			}
			var mem [xfs.BlockSize]byte
			block, err := f.readSlot(p, e, mem[:])
			if err != nil {
				return err
			}
			// The slot stays: its beginning is what is left.
			e.length, e.sum = keep, crc32.Checksum(block[:keep], castagnoli)
			changed[p] = e
			if e.durable {
				if err := batch.Set(placeKey(f.id, p), e.encode(), nil); err != nil {
					return xos.Errorf(xos.Internal, "writing the index: %w", err)
				}
			}
		default:
			removed = append(removed, p)
			if e.indexed {
				if err := batch.Delete(placeKey(f.id, p), nil); err != nil {
					return xos.Errorf(xos.Internal, "writing the index: %w", err)
				}
			}
		}
	}
	if !batch.Empty() {
		if err := batch.Commit(pebble.Sync); err != nil {
			return diskError(err)
		}
	}
	for p, e := range changed {
		f.at[p] = e
	}
	for _, p := range removed {
		f.free = append(f.free, f.at[p].slot)
		delete(f.at, p)
		delete(f.dirty, p)
	}
	return f.trim()
}

// Delete removes a file: first what leads to its data, then the data. What
// comes late to write to it is refused.
func (s *Store) Delete(id xfs.FileID) error {
	batch := s.index.NewBatch()
	defer batch.Close()
	if err := markDeleted(batch, id); err != nil {
		return xos.Errorf(xos.Internal, "writing the index: %w", err)
	}
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		if err := batch.Commit(pebble.Sync); err != nil {
			return diskError(err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer s.put(f)
	f.syncing.Lock()
	defer f.syncing.Unlock()
	f.write.Lock()
	defer f.write.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil
	}
	for p, e := range f.at {
		if e.indexed {
			if err := batch.Delete(placeKey(id, p), nil); err != nil {
				return xos.Errorf(xos.Internal, "writing the index: %w", err)
			}
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return diskError(err)
	}
	// From here on the file is gone, even if its data should be left behind:
	// opening the store removes that.
	s.used.Add(-f.taken() * xfs.BlockSize)
	f.gone, f.at, f.dirty, f.slots = true, map[place]entry{}, map[place]bool{}, slots{}
	if err := os.Remove(f.data.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	return nil
}
