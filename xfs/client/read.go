package client

import (
	"context"
	"errors"
	"hash/crc32"

	"github.com/xtreemos/xos/xfs"
)

// ReadAt reads; fewer bytes than asked for mean the end of the file.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.may(xfs.MayRead); err != nil {
		return 0, err
	}
	in := f.in
	in.gate.RLock()
	defer in.gate.RUnlock()
	in.mu.Lock()
	n := int(min(int64(len(p)), max(in.size-off, 0)))
	sequential := f.next == off || off == 0
	f.next = off + int64(n)
	in.mu.Unlock()
	for done := 0; done < n; {
		k, err := in.readChunk(ctx, p[done:n], off+int64(done), sequential)
		if err != nil {
			return done, err
		}
		done += k
	}
	return n, nil
}

// fetch is a chunk read before all of it was asked for.
type fetch struct {
	done chan struct{}
	data []byte
	err  error
}

// readChunk reads what of p lies in one chunk.
func (in *inode) readChunk(ctx context.Context, p []byte, off int64, sequential bool) (int, error) {
	size := in.chunkSize()
	from := int(off % size)
	n := min(len(p), int(size)-from)
	p = p[:n]
	number := off / size
	if in.overlay(number, from, p) {
		return n, nil
	}
	if sequential && in.readAhead(ctx, number, from, p) {
		return n, nil
	}
	r := &reader{n: number, from: from, p: p}
	in.mu.Lock()
	if in.readers == nil {
		in.readers = map[*reader]struct{}{}
	}
	in.readers[r] = struct{}{}
	in.mu.Unlock()
	err := in.readStorage(ctx, p, off)
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.readers, r)
	if err != nil {
		return 0, err
	}
	for _, l := range r.late {
		copy(p[l.at:], l.data)
	}
	in.overlayLocked(number, from, p)
	return n, nil
}

// reader is a read from the OSD under way, of p at from in chunk n. late is
// what was let go of meanwhile: it is newer than what the OSD answers with.
type reader struct {
	n    int64
	from int
	p    []byte
	late []patch
}

type patch struct {
	at   int
	data []byte
}

// readAhead reads from a chunk that is being read ahead, and starts the next;
// false if there is none to be had, or it has become old meanwhile.
func (in *inode) readAhead(ctx context.Context, number int64, from int, p []byte) bool {
	ahead := in.fetch(number)
	in.fetch(number + 1) // on its way while this one is consumed
	if ahead == nil {
		return false
	}
	select {
	case <-ahead.done:
	case <-ctx.Done():
		return false
	}
	if ahead.err != nil {
		return false
	}
	k := 0
	if from < len(ahead.data) {
		k = copy(p, ahead.data[from:])
	}
	clear(p[k:])
	in.overlay(number, from, p)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.fetches[number] != ahead {
		return false
	}
	if from+len(p) == int(in.chunkSize()) {
		delete(in.fetches, number) // consumed
	}
	return true
}

// overlay puts what is held here over p, and reports whether that was all of
// it.
func (in *inode) overlay(number int64, from int, p []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.overlayLocked(number, from, p)
}

// overlayLocked is overlay for who holds mu.
func (in *inode) overlayLocked(number int64, from int, p []byte) bool {
	k := in.chunks[number]
	if k == nil {
		return false
	}
	held := k.held()
	for _, s := range held.within(from, from+len(p)) {
		copy(p[s.from-from:], k.data[s.from:s.to])
	}
	w := held.within(from, from+len(p))
	return w.is(from, from+len(p))
}

// maxFetches bounds the chunks of one file that are read ahead.
const maxFetches = 3

// fetch starts reading a chunk ahead, or gives the one under way; nil where
// there is nothing to read or no room.
func (in *inode) fetch(number int64) *fetch {
	size := in.chunkSize()
	in.mu.Lock()
	defer in.mu.Unlock()
	if f := in.fetches[number]; f != nil {
		return f
	}
	length := min(size, in.size-number*size)
	if length <= 0 {
		return nil
	}
	if len(in.fetches) >= maxFetches {
		for n := range in.fetches {
			if n < number-1 || n > number+1 {
				delete(in.fetches, n)
			}
		}
		if len(in.fetches) >= maxFetches {
			return nil
		}
	}
	f := &fetch{done: make(chan struct{})}
	if in.fetches == nil {
		in.fetches = map[int64]*fetch{}
	}
	in.fetches[number] = f
	in.c.mu.Lock()
	in.busy++
	in.c.mu.Unlock()
	go func() {
		defer in.c.done(in)
		buf := make([]byte, length)
		f.err = in.readStorage(context.Background(), buf, number*size)
		f.data = buf
		if f.err != nil {
			in.mu.Lock()
			if in.fetches[number] == f {
				delete(in.fetches, number)
			}
			in.mu.Unlock()
		}
		close(f.done)
	}()
	return f
}

// readStorage fills p from the OSD; what it does not have is zero. Every block
// is checked against the checksum that came with it; a block damaged on its
// way is asked for once more.
func (in *inode) readStorage(ctx context.Context, p []byte, off int64) error {
	if err := in.cutStorage(ctx); err != nil {
		return err
	}
	object, at := in.object(off)
	osd := in.storage()
	for tries := 0; ; tries++ {
		var data []byte
		var check []uint32
		err := in.c.ask(ctx, in.c.away(in.layout.Replicas[0].Stripes[0].OSD), func(ctx context.Context) error {
			capability, err := in.capability(ctx, xfs.MayRead)
			if err != nil {
				return err
			}
			data, check, err = osd.Read(ctx, capability, object, at, len(p))
			return err
		})
		if err == nil {
			err = verify(at, data, check)
		}
		if errors.Is(err, xfs.ErrCorrupt) && tries == 0 {
			continue
		}
		if err != nil {
			return err
		}
		clear(p[copy(p, data):])
		return nil
	}
}

// verify checks data at an offset of an object against its blocks' checksums.
func verify(at int64, data []byte, check []uint32) error {
	for i := 0; len(data) > 0; i++ {
		n := min(int64(len(data)), xfs.BlockSize-at%xfs.BlockSize)
		if i >= len(check) || crc32.Checksum(data[:n], castagnoli) != check[i] {
			return xfs.ErrCorrupt
		}
		data, at = data[n:], at+n
	}
	return nil
}
