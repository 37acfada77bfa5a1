package osd

import (
	"hash/crc32"

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
	list := make([]part, 0, n/xfs.BlockSize+2)
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

func checkRange(off int64, n int) error {
	if off < 0 || off > maxObject || int64(n) > maxObject-off {
		return xos.Errorf(xos.Invalid, "%d bytes at %d are outside any object", n, off)
	}
	return nil
}

// Write puts data at off of an object; see xfs.OSD.
func (s *Store) Write(id xfs.FileID, object uint64, off int64, data []byte, sums []uint32) error {
	if err := checkRange(off, len(data)); err != nil {
		return err
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
		if old, merge := f.merges(object, p); merge {
			e, err := f.mergePart(place{object, p.block}, old, p, slots[i], data)
			if err != nil {
				return err
			}
			changes[place{object, p.block}] = e
			i++
			continue
		}
		j := i
		for {
			changes[place{object, list[j].block}] = entry{slot: slots[j], length: int32(list[j].to), sum: sums[j]}
			if j+1 == len(list) || slots[j+1] != slots[j]+1 {
				break
			}
			if _, merge := f.merges(object, list[j+1]); merge {
				break
			}
			j++
		}
		if _, err := f.data.WriteAt(data[p.lo:list[j].hi], slots[i]*xfs.BlockSize); err != nil {
			return diskError(err)
		}
		i = j + 1
	}
	return nil
}

// merges reports whether a block is to have bytes beside those of the part.
func (f *file) merges(object uint64, p part) (old entry, merge bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	old = f.at[place{object, p.block}]
	return old, p.from > 0 || int(old.length) > p.to
}

// mergePart writes a block that is partly old, partly new. The old part is
// verified first; between the two there are zeroes.
func (f *file) mergePart(at place, old entry, p part, slot int64, data []byte) (entry, error) {
	var mem [xfs.BlockSize]byte
	if old.length > 0 {
		f.mu.RLock()
		_, err := f.readSlot(at, old, mem[:])
		f.mu.RUnlock()
		if err != nil {
			return entry{}, err
		}
	}
	copy(mem[p.from:p.to], data[p.lo:p.hi])
	block := mem[:max(p.to, int(old.length))]
	if _, err := f.data.WriteAt(block, slot*xfs.BlockSize); err != nil {
		return entry{}, diskError(err)
	}
	return entry{slot: slot, length: int32(len(block)), sum: crc32.Checksum(block, castagnoli)}, nil
}

// install moves the index in memory to new places. The write lock is held.
func (f *file) install(changes map[place]entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, e := range changes {
		if old, ok := f.at[p]; ok {
			f.leave(old)
			e.indexed = old.indexed
		}
		f.at[p] = e
		f.dirty[p] = true
	}
}
