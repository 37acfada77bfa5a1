package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// readInput passes standard input on. A terminal is read only while this
// process is in its foreground: else it would be stopped for it although the
// job, perhaps, never reads.
func (s *stand) readInput() {
	terminal := isTerminal(0)
	buf := make([]byte, 32<<10)
	for {
		if !s.room() {
			return
		}
		if terminal && !s.mayRead() {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		n, err := os.Stdin.Read(buf)
		s.mu.Lock()
		at := s.inFrom + int64(len(s.in))
		if n > 0 {
			s.in = append(s.in, buf[:n]...)
			s.pass(&xosv1.ToJob{StdinOffset: at, Stdin: append([]byte(nil), buf[:n]...)})
		}
		if err != nil {
			s.inEOF = true
			s.pass(&xosv1.ToJob{StdinOffset: at + int64(n), StdinEof: true})
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// room waits until the job has taken enough of what was read before.
func (s *stand) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.in) >= inputWindow-32<<10 {
		s.changed.Wait()
	}
	return !s.inEOF
}

// mayRead waits a little for something to be read on the terminal, and reports
// whether it is there for this process.
func (s *stand) mayRead() bool {
	if !inForeground() {
		return false
	}
	fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 200)
	return err == nil && n > 0 && inForeground()
}
