package wiretest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Log is the system log of a room.
type Log struct{ c *net.UnixConn }

// Log gives the room a system log of the test's own.
func (r *Room) Log(t testing.TB) Log {
	t.Helper()
	path := filepath.Join(filepath.Dir(r.Run), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return Log{c}
}

// Entries gives what ended programs have logged since the last time, with
// priority and time as they were sent.
func (l Log) Entries(t testing.TB) []string {
	t.Helper()
	var all []string
	b := make([]byte, 1<<17)
	for {
		// A datagram that was sent is there at once.
		l.c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, err := l.c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b[:n]))
	}
}
