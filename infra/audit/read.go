package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/xtreemos/xos"
)

// Filter says which entries a query wants; a zero field wants any.
type Filter struct {
	Since, Until time.Time
	Actor        string
	Action       string
	Subject      string
	Denied       bool // only refusals
	// Last keeps only that many, the newest; 0 means 1000.
	Last int
}

// Query gives the entries that match, oldest first. It reads the whole file.
func (l *Log) Query(f Filter) ([]Entry, error) { return Query(l.path, f) }

// Query is Log.Query for a log that need not be open.
func Query(path string, f Filter) ([]Entry, error) {
	if f.Last <= 0 {
		f.Last = 1000
	}
	var found []Entry
	err := scan(path, func(e Entry, _ []byte) error {
		if f.match(e) {
			if len(found) >= 2*f.Last {
				found = append(found[:0], found[len(found)-f.Last:]...)
			}
			found = append(found, e)
		}
		return nil
	})
	return found[max(0, len(found)-f.Last):], err
}

func (f Filter) match(e Entry) bool {
	return (f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		(f.Actor == "" || f.Actor == e.Actor) &&
		(f.Action == "" || f.Action == e.Action) &&
		(f.Subject == "" || f.Subject == e.Subject) &&
		!(f.Denied && e.Allowed)
}

// Verify checks the chain of a log and gives the number and the hash of its
// last line; xos.Invalid, with the line's number, where it is broken.
func Verify(path string) (seq uint64, hash string, err error) {
	hash = zero
	err = scan(path, func(e Entry, line []byte) error {
		if e.Seq != seq+1 || e.Prev != hash {
			return xos.Errorf(xos.Invalid, "audit log %s: line %d does not follow the line before it", path, seq+1)
		}
		seq, hash = e.Seq, sum(line)
		return nil
	})
	return seq, hash, err
}

// scan calls f for each line. A last one that is not ended is not yet written.
func scan(path string, f func(e Entry, line []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, maxLine)
	for n := 1; ; n++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return xos.Errorf(xos.Invalid, "audit log %s: line %d: %w", path, n, err)
		}
		line = line[:len(line)-1]
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return xos.Errorf(xos.Invalid, "audit log %s: line %d is malformed: %w", path, n, err)
		}
		if err := f(e, line); err != nil {
			return err
		}
	}
}
