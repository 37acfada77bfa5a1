package client

import (
	"context"
	"hash/crc32"
	"sync"

	"github.com/xtreemos/xos/xfs"
)

// chunkSize is the unit in which data is held and sent: what one request to an
// OSD carries. Smaller objects have smaller chunks.
const chunkSize = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunk is data of a file that was written here and is not yet durable.
type chunk struct {
	n     int64 // number: it begins at n * in.chunkSize()
	data  []byte
	dirty spans // not yet sent
	sent  spans // being sent; must not be changed meanwhile
	acked spans // the OSD has it, but may lose it
	stale spans // of acked: someone else may have written over it since
	// since is the OSD's Connections before the earliest of acked was sent.
	since uint64
	acks  uint64 // counts sends that were acknowledged
}

// held is everything in the chunk that readers must see.
func (k *chunk) held() spans {
	held := append(spans{}, k.acked...)
	for _, s := range k.stale {
		held = held.remove(s.from, s.to)
	}
	return held.union(k.dirty).union(k.sent)
}

// cut takes a range out of what is dirty or acknowledged.
func (k *chunk) cut(from, to int) {
	k.dirty = k.dirty.remove(from, to)
	k.acked, k.stale = k.acked.remove(from, to), k.stale.remove(from, to)
}

func (k *chunk) idle() bool { return len(k.dirty) == 0 && len(k.sent) == 0 && len(k.acked) == 0 }

var chunkPool = sync.Pool{New: func() any { return make([]byte, chunkSize) }}

// chunkSize of the file; mu need not be held, the layout never changes.
func (in *inode) chunkSize() int64 { return min(chunkSize, in.layout.ObjectSize) }

// object says where in the file's objects an offset is.
func (in *inode) object(off int64) (object uint64, at int64) {
	return uint64(off / in.layout.ObjectSize), off % in.layout.ObjectSize
}

// chunk finds or makes a chunk; mu is held.
func (in *inode) chunk(n int64) *chunk {
	k := in.chunks[n]
	if k == nil {
		k = &chunk{n: n, data: chunkPool.Get().([]byte)}
		if in.chunks == nil {
			in.chunks = map[int64]*chunk{}
		}
		in.chunks[n] = k
		in.c.used.Add(chunkSize)
	}
	return k
}

// drop forgets a chunk that holds nothing any more; mu is held.
func (in *inode) drop(k *chunk) {
	if in.chunks[k.n] != k {
		return
	}
	delete(in.chunks, k.n)
	chunkPool.Put(k.data) //nolint:staticcheck // a slice's header is small
	k.data = nil
	in.c.used.Add(-chunkSize)
	in.c.mu.Lock()
	in.c.room.Broadcast()
	in.c.mu.Unlock()
}

// settle lets go of acknowledged data: from now on the OSD's is right. What is
// being read from there meanwhile may be older, so those who read it are given
// this. mu is held.
func (in *inode) settle(k *chunk, s span) {
	for r := range in.readers {
		if a, b := max(s.from, r.from), min(s.to, r.from+len(r.p)); r.n == k.n && a < b && k.stale.disjoint(a, b) {
			r.late = append(r.late, patch{a - r.from, append([]byte(nil), k.data[a:b]...)})
		}
	}
	k.acked, k.stale = k.acked.remove(s.from, s.to), k.stale.remove(s.from, s.to)
	delete(in.fetches, k.n)
}

// overtaken notes that someone else changed the file's data: what the OSD has
// of it is no older than what was acknowledged. mu is held.
func (in *inode) overtaken() {
	for _, k := range in.chunks {
		k.stale = append(spans{}, k.acked...)
	}
}

// sums gives the checksums of data at an offset of an object, a block each.
func sums(off int64, data []byte) []uint32 {
	var out []uint32
	for len(data) > 0 {
		n := min(int64(len(data)), xfs.BlockSize-off%xfs.BlockSize)
		out = append(out, crc32.Checksum(data[:n], castagnoli))
		data, off = data[n:], off+n
	}
	return out
}

// storage gives the file's OSD.
func (in *inode) storage() Storage { return in.c.deps.Storage(in.layout.Replicas[0].Stripes[0]) }

// capability gives one with these rights that serves for a while yet.
func (in *inode) capability(ctx context.Context, rights xfs.Rights) (xfs.Capability, error) {
	in.mu.Lock()
	for _, c := range in.caps {
		if c.Rights&rights == rights && in.c.serves(c) {
			in.mu.Unlock()
			return c, nil
		}
	}
	in.mu.Unlock()
	o, err := retry1(ctx, in.c, func(ctx context.Context) (xfs.Opened, error) { return in.c.mrc.Open(ctx, in.ino, rights) })
	if err != nil {
		return xfs.Capability{}, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.take(o)
	return o.Capability, nil
}

// take notes layout and capability of an answer; mu is held.
func (in *inode) take(o xfs.Opened) {
	in.layout = o.Layout
	caps := in.caps[:0]
	for _, c := range in.caps {
		if in.c.serves(c) && c.Rights&o.Capability.Rights != c.Rights {
			caps = append(caps, c)
		}
	}
	in.caps = append(caps, o.Capability)
}
