package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/xtreemos/xos"
)

// Broken says where the chain of a log ends to be one.
type Broken struct {
	// Line is the number of the first entry that is not what was written there.
	Line   uint64
	Reason string
}

func (b *Broken) Error() string { return fmt.Sprintf("line %d %s", b.Line, b.Reason) }

// Mark is what is known of a log's past: the number of an entry and its hash.
type Mark struct {
	Seq  uint64
	Hash string
}

// chain is a log on its way from the first entry to the last.
type chain struct {
	path  string
	marks []Mark
	begin Mark // the entry before the first that is there
	read  bool // the first was read
	known bool // an entry says that those up to begin have expired
	seq   uint64
	hash  string
}

// Verify checks the chain of a log, and that it holds the entries marked. It
// gives the last entry of what is whole; xos.Invalid, wrapping a Broken, where
// the chain is broken, and xos.NotFound where all is whole but what is marked
// has expired.
func Verify(path string, marks ...Mark) (seq uint64, hash string, err error) {
	newest, older, _, err := openAll(path)
	if err != nil {
		return 0, zero, err
	}
	defer newest.Close()
	c := chain{path: path, marks: marks, known: true, hash: zero}
	for _, name := range older {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && !c.read { // it expired meanwhile
			continue
		}
		if err != nil {
			return c.seq, c.hash, err
		}
		err = scan(f, c.next)
		f.Close()
		if err != nil {
			return c.seq, c.hash, err
		}
	}
	if err := scan(newest, c.next); err != nil {
		return c.seq, c.hash, err
	}
	return c.end()
}

func (c *chain) broken(format string, args ...any) error {
	return xos.Errorf(xos.Invalid, "audit log %s: %w", c.path, &Broken{c.seq + 1, fmt.Sprintf(format, args...)})
}

func (c *chain) next(line []byte, err error) error {
	if err != nil {
		return c.broken("cannot be read: %v", err)
	}
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return c.broken("is malformed: %v", err)
	}
	if !c.read && e.Seq > 1 {
		c.begin, c.known = Mark{e.Seq - 1, e.Prev}, false
		c.seq, c.hash = e.Seq-1, e.Prev
	}
	c.read = true
	if e.Seq != c.seq+1 {
		return c.broken("has the number %d: lines were removed, added or moved", e.Seq)
	}
	if e.Prev != c.hash {
		return c.broken("does not follow line %d: that one, or this one, was changed", c.seq)
	}
	h := sum(line)
	for _, m := range c.marks {
		if m.Seq == e.Seq && m.Hash != h {
			return c.broken("is not the one that was noted: its hash is %s", h)
		}
	}
	if e.Action == actionExpired && e.Detail[detailLast] == strconv.FormatUint(c.begin.Seq, 10) && e.Detail[detailHash] == c.begin.Hash {
		c.known = true
	}
	c.seq, c.hash = e.Seq, h
	return nil
}

func (c *chain) end() (seq uint64, hash string, err error) {
	if !c.known {
		first := c.begin.Seq + 1
		c.seq, c.hash = 0, zero
		return c.seq, c.hash, c.broken("is missing: the log begins with %d, and does not say that older ones have expired", first)
	}
	for _, m := range c.marks {
		if m.Seq > c.seq {
			return c.seq, c.hash, c.broken("is missing: the log once had %d", m.Seq)
		}
		if m.Seq == c.begin.Seq && m.Hash != c.begin.Hash {
			c.seq, c.hash = c.begin.Seq, c.begin.Hash
			return c.seq, c.hash, c.broken("does not follow the one that was noted, which has expired")
		}
		if m.Seq < c.begin.Seq {
			return c.seq, c.hash, xos.Errorf(xos.NotFound, "audit log %s: entry %d has expired; what is there, from %d on, is whole", c.path, m.Seq, c.begin.Seq+1)
		}
	}
	return c.seq, c.hash, nil
}

// Verify is Verify of this log: all that was appended before must be there.
func (l *Log) Verify(marks ...Mark) (seq uint64, hash string, err error) {
	if n, h := l.Head(); n > 0 {
		marks = append(marks, Mark{n, h})
	}
	return Verify(l.path, marks...)
}

// scan calls f for each line, or with why it is none. A last one that is not
// ended is not yet written.
func scan(file *os.File, f func(line []byte, err error) error) error {
	r := bufio.NewReaderSize(file, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return f(nil, err)
		}
		if err := f(line[:len(line)-1], nil); err != nil {
			return err
		}
	}
}
