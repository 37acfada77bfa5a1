package wire

import (
	"io"
	"runtime"
	"sort"
	"sync"

	"github.com/xtreemos/xos"
)

const (
	perWorker = 4096    // users that are worth another processor
	chunk     = 1 << 18 // bytes that are written at once
)

// bulk is the users of a large snapshot, whose records are after all else in
// its file.
type bulk struct {
	*layout
	Whole
	at        []uint32 // where records begin, and the last one ends
	keys, ids []uint32 // of their names; their uids
}

// write writes all of w to an empty file and gives its size; lists have no members
// before. It is what encode gives, but written by all processors, and never in
// memory as a whole: nothing else about snapshots takes as long.
func (w Whole) write(f io.WriterAt, generation uint64, lists rosters) (size int, err error) {
	b := bulk{nil, w, make([]uint32, w.Len+1), make([]uint32, w.Len), make([]uint32, w.Len)}
	var work sync.WaitGroup
	work.Go(func() { w.enroll(lists) })
	for i := range w.Len {
		u := w.User(i)
		b.at[i] = uint32(min(sizeOf(&u), snapMax))
	}
	work.Wait()
	b.layout = w.begin(lists)
	size = len(b.e.b)
	for i, n := range b.at {
		b.at[i] = uint32(size)
		if size += int(n); size > snapMax {
			return 0, b.tooLarge()
		}
	}
	b.tail = size - len(b.e.b)
	errs := make([]error, min(1+w.Len/perWorker, runtime.GOMAXPROCS(0)))
	for i := range errs {
		work.Go(func() { errs[i] = b.records(f, i*w.Len/len(errs), (i+1)*w.Len/len(errs)) })
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	b.users = uint32(w.Len)
	if err := b.index(f); err != nil {
		return 0, err
	}
	head, err := b.finish(generation)
	if err == nil {
		_, err = f.WriteAt(head[:b.names], 0)
	}
	if err == nil {
		end := b.layout.ids + b.slots*8
		_, err = f.WriteAt(head[end:], int64(end))
	}
	return size, err
}

// records writes those of the users from one to before another, and notes their
// keys and ids.
func (b *bulk) records(f io.WriterAt, from, to int) error {
	part := layout{vo: b.layout.vo, e: encoder{b: make([]byte, 0, chunk)}}
	begin := b.at[from]
	for i := from; i < to; i++ {
		u := b.User(i)
		if err := u.check(part.vo); err != nil {
			return err
		}
		b.keys[i], b.ids[i] = nameKey(u.Name), u.UID
		part.userRecord(&u)
		end := begin + uint32(len(part.e.b))
		switch {
		case part.e.err != nil:
			return part.e.err
		case part.err != nil:
			return part.err
		case end != b.at[i+1]:
			return xos.Errorf(xos.Internal, "snapshot of %s: %s ends at %d, not at %d", part.vo, u.Name, end, b.at[i+1])
		}
		if i+1 == to || len(part.e.b) > chunk-(1<<12) {
			if _, err := f.WriteAt(part.e.b, int64(begin)); err != nil {
				return err
			}
			part.e.b, begin = part.e.b[:0], end
		}
	}
	return nil
}

// index enters all into both indexes, and writes these.
func (b *bulk) index(f io.WriterAt) error {
	fill := func(index uint32, keys []uint32, same func(i int, other uint32) bool) error {
		for i, key := range keys {
			if !b.put(index, key, b.at[i], func(other uint32) bool { return same(i, other) }) {
				return b.conflict(b.User(i).Name)
			}
		}
		_, err := f.WriteAt(b.e.b[index:index+b.slots*8], int64(index))
		return err
	}
	var byID, byName error
	var work sync.WaitGroup
	work.Go(func() { byID = fill(b.layout.ids, b.ids, func(int, uint32) bool { return true }) })
	byName = fill(b.names, b.keys, func(i int, other uint32) bool { return b.isOf(other, b.User(i).Name) })
	work.Wait()
	if byName != nil {
		return byName
	}
	return byID
}

// isOf says whether the record is this name's.
func (b *bulk) isOf(at uint32, name string) bool {
	if at < b.at[0] {
		return b.isNamed(at, name)
	}
	i := sort.Search(b.Len, func(i int) bool { return b.at[i] >= at })
	return b.User(i).Name == name
}
