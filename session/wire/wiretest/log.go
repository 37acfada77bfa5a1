package wiretest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Log is the system log of a room.
type Log struct {
	path    string
	entries chan []string
}

// endOfEntries is a datagram that Entries sends behind all others.
const endOfEntries = "end of entries"

// Log gives the room a system log of the test's own.
func (r *Room) Log(t testing.TB) *Log {
	t.Helper()
	l := &Log{path: filepath.Join(filepath.Dir(r.Run), "log"), entries: make(chan []string)}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: l.path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.path, 0o666); err != nil {
		t.Fatal(err)
	}
	// It is read all the time, since whoever logs waits while it is full.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(l.entries)
		var all []string
		b := make([]byte, 1<<17)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if string(b[:n]) != endOfEntries {
				all = append(all, string(b[:n]))
				continue
			}
			l.entries <- all
			all = nil
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return l
}

// Entries gives what was logged since the last time, with priority and time as
// they were sent.
func (l *Log) Entries(t testing.TB) []string {
	t.Helper()
	c, err := net.Dial("unixgram", l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(endOfEntries)); err != nil {
		t.Fatal(err)
	}
	return <-l.entries
}
