package frame

import "sync"

// Buffers of three sizes are kept for reuse: most heads fit the first, a
// FUSE request's data the last.
var (
	small  = sync.Pool{New: func() any { return newBuffer(4 << 10) }}
	medium = sync.Pool{New: func() any { return newBuffer(128 << 10) }}
	large  = sync.Pool{New: func() any { return newBuffer(MaxBulk) }}
)

// buffer is memory on loan; free gives it back, after which nobody may touch it.
type buffer struct{ b []byte }

func newBuffer(n int) *buffer { return &buffer{make([]byte, n)} }

func poolFor(n int) *sync.Pool {
	switch {
	case n <= 4<<10:
		return &small
	case n <= 128<<10:
		return &medium
	}
	return &large
}

// getBuffer lends a buffer with n bytes, n <= MaxBulk.
func getBuffer(n int) *buffer {
	buf := poolFor(n).Get().(*buffer)
	buf.b = buf.b[:n]
	return buf
}

func (b *buffer) free() {
	if b == nil {
		return
	}
	b.b = b.b[:cap(b.b)]
	// append may have moved it to a capacity between the classes.
	switch c := cap(b.b); {
	case c >= MaxBulk:
		large.Put(b)
	case c >= 128<<10:
		medium.Put(b)
	case c >= 4<<10:
		small.Put(b)
	}
}
