package osd

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// slots are the places of xfs.BlockSize bytes in a data file. Each is led to by
// an entry, or in one of the lists, or behind the last.
type slots struct {
	next  int64   // slots from here on were never used
	free  []int64 // nothing leads to them, but they take space on the disk
	holes []int64 // nothing leads to them, and they take none
	freed []int64 // only the index on disk still leads to them
}

// foundSlots says which slots a data file has, when its entries are known.
// What an unsynced write left in the others is nobody's: its space is given
// back to the disk.
func foundSlots(data *os.File, at map[place]entry) (slots, error) {
	info, err := data.Stat()
	if err != nil {
		return slots{}, diskError(err)
	}
	s := slots{next: (info.Size() + xfs.BlockSize - 1) / xfs.BlockSize}
	used := map[int64]bool{}
	for _, e := range at {
		used[e.slot] = true
		s.next = max(s.next, e.slot+1)
	}
	var unused []int64
	for slot := range s.next {
		if !used[slot] {
			unused = append(unused, slot)
		}
	}
	s.holes = unused
	return s, punch(data, unused)
}

// punch gives the space of slots back to the disk. Disks that cannot do this
// keep it until the slots are used again.
func punch(data *os.File, list []int64) error {
	slices.Sort(list)
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && list[j] == list[j-1]+1 {
			j++
		}
		err := unix.Fallocate(int(data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			list[i]*xfs.BlockSize, int64(j-i)*xfs.BlockSize)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return diskError(err)
		}
		i = j
	}
	return nil
}

// allocate gives n slots, in a row where there are such. The write lock is
// held.
func (f *file) allocate(n int) ([]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return nil, err
	}
	if len(f.free) >= n {
		return cut(&f.free, n), nil
	}
	err := f.store.reserve(int64(n) * xfs.BlockSize)
	if xos.Is(err, xos.TooLarge) && f.store.reclaim(f) {
		err = f.store.reserve(int64(n) * xfs.BlockSize)
	}
	if err != nil {
		return nil, err
	}
	if len(f.holes) >= n {
		return cut(&f.holes, n), nil
	}
	list := make([]int64, n)
	for i := range list {
		list[i] = f.next
		f.next++
	}
	return list, nil
}

// cut takes n slots off a list's end, in order.
func cut(from *[]int64, n int) []int64 {
	k := len(*from) - n
	list := slices.Clone((*from)[k:])
	*from = (*from)[:k]
	slices.Sort(list)
	return list
}

// giveBack returns slots that were allocated and never led to.
func (f *file) giveBack(list []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, list...)
}

// leave frees the slot of a block that gets another or goes. mu is held.
func (f *file) leave(e entry) {
	if e.durable {
		f.freed = append(f.freed, e.slot)
	} else {
		f.free = append(f.free, e.slot)
	}
}

// keptFree is how many free slots a file may keep for its next writes, beside
// a quarter of what it has.
const keptFree = 64

// trim gives the space of free slots back to the disk if they are many for the
// file. mu is held.
func (f *file) trim() error {
	if len(f.at) > 0 && len(f.free) <= keptFree+len(f.at)/4 {
		return nil
	}
	return f.trimAll()
}

// trimAll gives the space of all free slots back. mu is held.
func (f *file) trimAll() error {
	if len(f.free) == 0 {
		return nil
	}
	if err := punch(f.data, f.free); err != nil {
		return err
	}
	f.store.used.Add(-int64(len(f.free)) * xfs.BlockSize)
	f.holes, f.free = append(f.holes, f.free...), nil
	return nil
}

// reclaim takes what other files keep for their next writes, and what this one
// keeps, whose mu is held. It reports whether there was anything.
func (s *Store) reclaim(f *file) bool {
	found := len(f.free) > 0 && f.trimAll() == nil
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.files {
		// One that is busy is let be: to wait for it might be for ever.
		if other == f || !other.mu.TryLock() {
			continue
		}
		found = len(other.free) > 0 && other.trimAll() == nil || found
		other.mu.Unlock()
	}
	return found
}

// taken is how many slots take space. mu is held.
func (f *file) taken() int64 { return int64(len(f.at) + len(f.free) + len(f.freed)) }
