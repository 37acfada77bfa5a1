package unit

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/xtreemos/xos"
)

// SpoolSize is how much output of one stream a unit keeps for its reader; a
// job that writes more than that, unread, blocks.
const SpoolSize = 1 << 20

// ringSize is the room in the file. The reserve above SpoolSize takes what the
// pipe still held when the job ended, at most /proc/sys/fs/pipe-max-size.
const ringSize = SpoolSize + 1<<20 + MaxData

// spoolHeader is two little-endian uint64: the offset of the first byte kept
// and that after the last one.
const spoolHeader = 16

// Spool is one output stream, counted from its first byte: a ring in a file,
// so that what a job wrote survives its supervisor. One writes, any number
// read and acknowledge.
type Spool struct {
	f *os.File

	mu     sync.Mutex
	start  int64 // first byte kept
	end    int64 // after the last
	limit  int   // bytes kept at most
	closed bool
	// changed is closed and replaced at each change.
	changed chan struct{}
}

// CreateSpool makes an empty one at path.
func CreateSpool(path string) (*Spool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s := &Spool{f: f, limit: SpoolSize, changed: make(chan struct{})}
	if err := s.store(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// OpenSpool opens one whose writer is gone: it is at its end.
func OpenSpool(path string) (*Spool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	var h [spoolHeader]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		f.Close()
		return nil, xos.Errorf(xos.Internal, "reading the header of %s: %w", path, err)
	}
	s := &Spool{f: f, closed: true, changed: make(chan struct{}),
		start: int64(binary.LittleEndian.Uint64(h[:8])), end: int64(binary.LittleEndian.Uint64(h[8:]))}
	if s.start < 0 || s.end < s.start || s.end-s.start > ringSize {
		f.Close()
		return nil, xos.Errorf(xos.Internal, "%s is damaged: it claims bytes %d to %d", path, s.start, s.end)
	}
	return s, nil
}

// store writes the header; the caller holds mu, or owns s alone.
func (s *Spool) store() error {
	var h [spoolHeader]byte
	binary.LittleEndian.PutUint64(h[:8], uint64(s.start))
	binary.LittleEndian.PutUint64(h[8:], uint64(s.end))
	_, err := s.f.WriteAt(h[:], 0)
	return err
}

func (s *Spool) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Room returns when at least one byte may be written, and how many.
func (s *Spool) Room(ctx context.Context) (int, error) {
	for {
		s.mu.Lock()
		room, changed := s.limit-int(s.end-s.start), s.changed
		s.mu.Unlock()
		if room > 0 {
			return room, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-changed:
		}
	}
}

// Write appends p, which must fit into the present Room.
func (s *Spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, os.ErrClosed
	}
	if len(p) > s.limit-int(s.end-s.start) {
		return 0, io.ErrShortWrite
	}
	for n := 0; n < len(p); {
		at := (s.end + int64(n)) % ringSize
		m := min(len(p)-n, int(ringSize-at))
		if _, err := s.f.WriteAt(p[n:n+m], spoolHeader+at); err != nil {
			return 0, err
		}
		n += m
	}
	s.end += int64(len(p))
	if err := s.store(); err != nil {
		return 0, err
	}
	s.signal()
	return len(p), nil
}

// ReadFrom copies into p what stands at offset, waiting for it; io.EOF after
// the end of a closed stream. If bytes from offset on were given up already
// (another reader acknowledged them), it goes on at the first one kept: at
// says where the data begins.
func (s *Spool) ReadFrom(ctx context.Context, offset int64, p []byte) (n int, at int64, err error) {
	for {
		s.mu.Lock()
		at = max(offset, s.start)
		if at < s.end {
			n = min(len(p), int(s.end-at))
			for done := 0; done < n; {
				pos := (at + int64(done)) % ringSize
				m := min(n-done, int(ringSize-pos))
				if _, err := s.f.ReadAt(p[done:done+m], spoolHeader+pos); err != nil {
					s.mu.Unlock()
					return 0, at, err
				}
				done += m
			}
			s.mu.Unlock()
			return n, at, nil
		}
		closed, changed := s.closed, s.changed
		s.mu.Unlock()
		if closed {
			return 0, at, io.EOF
		}
		select {
		case <-ctx.Done():
			return 0, at, ctx.Err()
		case <-changed:
		}
	}
}

// Ack gives up everything before offset. What was not yet written cannot be
// acknowledged.
func (s *Spool) Ack(offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset <= s.start || offset > s.end {
		return nil
	}
	s.start = offset
	s.signal()
	return s.store()
}

// Drain opens the reserve: the job has ended, and what is left in its pipe
// must not wait for a reader.
func (s *Spool) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = ringSize
	s.signal()
}

// Bounds are the offsets of the first byte kept and of the end.
func (s *Spool) Bounds() (start, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.start, s.end
}

// End says that nothing more will be written.
func (s *Spool) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.signal()
	}
}

// Close ends the stream and closes the file, which stays.
func (s *Spool) Close() error {
	s.End()
	return errors.Join(s.f.Sync(), s.f.Close())
}
