package osd

import (
	"errors"
	"hash/crc32"
	"io/fs"

	"github.com/xtreemos/xos/xfs"
)

// ReadInto reads what an object has at off, up to len(buf) bytes; see xfs.OSD.
// Every block that is touched is verified whole.
func (s *Store) ReadInto(id xfs.FileID, object uint64, off int64, buf []byte) (int, []uint32, error) {
	if err := checkRange(off, len(buf)); err != nil {
		return 0, nil, err
	}
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, s.unlessDeleted(id)
	}
	if err != nil {
		return 0, nil, err
	}
	defer s.put(f)
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.gone {
		return 0, nil, errDeleted
	}
	list := parts(off, len(buf))
	n := 0 // up to the end of the last block found that has bytes here
	for _, p := range list {
		if e, ok := f.at[place{object, p.block}]; ok && int(e.length) > p.from {
			n = p.lo + min(int(e.length), p.to) - p.from
		}
	}
	// The object may go on behind the range: then holes up to its end count.
	if n < len(buf) && f.goesOn(object, list) {
		n = len(buf)
	}
	var mem [xfs.BlockSize]byte
	sums := make([]uint32, 0, len(list))
	for _, p := range parts(off, n) {
		out := buf[p.lo:p.hi]
		e, ok := f.at[place{object, p.block}]
		if !ok {
			clear(out)
			sums = append(sums, crc32.Checksum(out, castagnoli))
			continue
		}
		if p.from == 0 && int(e.length) == len(out) {
			if _, err := f.readSlot(place{object, p.block}, e, out); err != nil {
				return 0, nil, err
			}
			sums = append(sums, e.sum)
			continue
		}
		block, err := f.readSlot(place{object, p.block}, e, mem[:])
		if err != nil {
			return 0, nil, err
		}
		k := 0
		if p.from < len(block) {
			k = copy(out, block[p.from:])
		}
		clear(out[k:])
		sums = append(sums, crc32.Checksum(out, castagnoli))
	}
	return n, sums, nil
}

// goesOn reports whether the object has blocks behind those of the range.
func (f *file) goesOn(object uint64, list []part) bool {
	if len(list) == 0 {
		return false
	}
	last := list[len(list)-1].block
	const most = maxObject / xfs.BlockSize
	if len(f.at) < most {
		for p := range f.at {
			if p.object == object && p.block > last {
				return true
			}
		}
		return false
	}
	for b := last + 1; b < most; b++ {
		if _, ok := f.at[place{object, b}]; ok {
			return true
		}
	}
	return false
}
