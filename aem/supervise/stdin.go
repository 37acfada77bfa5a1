package supervise

import (
	"os"
	"sync"

	"github.com/xtreemos/xos"
)

// stdinQueue bounds what was received for a job but not yet taken by it. A
// sender keeps fewer bytes than this unacknowledged.
const stdinQueue = 256 << 10

// endOfFile is what a terminal's line discipline takes as the end (VEOF).
const endOfFile = 4

// stdin feeds a job's standard input, counted from its first byte. Bytes are
// acknowledged when the job's pipe has taken them, so a sender that has to
// begin anew sends from there, and what came twice is dropped.
type stdin struct {
	w   *os.File
	tty bool

	mu       sync.Mutex
	wake     *sync.Cond
	received int64 // queued or written
	acked    int64 // written
	queue    []byte
	eof      bool
	// changed is closed and replaced when acked grows.
	changed chan struct{}
}

func newStdin(w *os.File, tty bool) *stdin {
	s := &stdin{w: w, tty: tty, changed: make(chan struct{})}
	s.wake = sync.NewCond(&s.mu)
	go s.write()
	return s
}

// end says that nothing will come; the job reads an end of file.
func (s *stdin) end() { s.take(0, nil, true) }

// take accepts data at an offset, and the end after it.
func (s *stdin) take(offset int64, data []byte, eof bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset > s.received || offset < 0 {
		return xos.Errorf(xos.Invalid, "standard input continues at byte %d, but only %d came", offset, s.received)
	}
	if have := s.received - offset; have >= int64(len(data)) {
		data = nil
	} else {
		data = data[have:]
	}
	if s.eof && len(data) > 0 {
		return xos.Errorf(xos.Invalid, "standard input after its end")
	}
	if len(s.queue)+len(data) > stdinQueue {
		return xos.Errorf(xos.TooLarge, "more than %d bytes of standard input await the job", stdinQueue)
	}
	s.queue = append(s.queue, data...)
	s.received += int64(len(data))
	s.eof = s.eof || eof
	s.wake.Signal()
	return nil
}

// position gives how much was taken, and a channel closed when it is more.
func (s *stdin) position() (int64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked, s.changed
}

// write is the goroutine that feeds the pipe. A job that has closed its
// standard input, or ended, takes everything: as a local pipe's reader would,
// it just does not care.
func (s *stdin) write() {
	broken := false
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.eof {
			s.wake.Wait()
		}
		chunk := s.queue
		s.queue = nil
		last := s.eof && len(chunk) == 0
		s.mu.Unlock()

		if last {
			if !s.tty {
				s.w.Close()
			} else if !broken {
				s.w.Write([]byte{endOfFile})
			}
			return
		}
		for len(chunk) > 0 {
			n := min(len(chunk), 16<<10)
			if !broken {
				if _, err := s.w.Write(chunk[:n]); err != nil {
					broken = true
				}
			}
			chunk = chunk[n:]
			s.mu.Lock()
			s.acked += int64(n)
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
		}
	}
}
