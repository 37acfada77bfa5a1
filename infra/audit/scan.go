package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xtreemos/xos"
)

// block is what is read at once from the end of a log.
const block = maxLine

// backwards calls f for each line before end, the last one first, until it
// says that it has enough. A last line that is not ended is not yet written.
func backwards(file *os.File, end int64, f func(line []byte) (more bool, err error)) error {
	var rest []byte // the end of a line whose begin was not read yet
	ended := false
	for end > 0 {
		n := min(end, block)
		end -= n
		chunk := make([]byte, n, int(n)+len(rest))
		if _, err := file.ReadAt(chunk, end); err != nil {
			return err
		}
		chunk = append(chunk, rest...)
		for i := bytes.LastIndexByte(chunk, '\n'); i >= 0; i = bytes.LastIndexByte(chunk, '\n') {
			line := chunk[i+1:]
			chunk = chunk[:i]
			if !ended {
				ended = true
				continue
			}
			if more, err := f(line); err != nil || !more {
				return err
			}
		}
		if rest = chunk; len(rest) > 2*maxLine {
			return xos.Errorf(xos.Invalid, "audit log %s: a line is too long", file.Name())
		}
	}
	if !ended {
		return nil
	}
	_, err := f(rest)
	return err
}

// seek gives an end for backwards before which all entries below seq lie and,
// in a log of any size, little else. It trusts the numbers of the lines.
func seek(file *os.File, end int64, seq uint64) (int64, error) {
	buf := make([]byte, 2*maxLine)
	for from := int64(0); end-from > int64(len(buf)); {
		middle := (from + end) / 2
		n, err := file.ReadAt(buf, middle)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		_, after, ok := bytes.Cut(buf[:n], []byte("\n"))
		line, _, whole := bytes.Cut(after, []byte("\n"))
		var e Entry
		if !ok || !whole || json.Unmarshal(line, &e) != nil {
			return end, nil // backwards will say what is wrong
		}
		at := middle + int64(n-len(after))
		switch {
		case at >= end:
			return end, nil // a line longer than any is
		case e.Seq >= seq:
			end = at
		default:
			from = at
		}
	}
	return end, nil
}

// Broken says where the chain of a log ends to be one.
type Broken struct {
	// Line is the first that is not what was written there, counted from 1.
	Line   uint64
	Reason string
}

func (b *Broken) Error() string { return fmt.Sprintf("line %d %s", b.Line, b.Reason) }

// Mark is what is known of a log's past: the number of a line and its hash.
type Mark struct {
	Seq  uint64
	Hash string
}

// Verify checks the chain of a log, and that it holds the lines marked. It
// gives the last line of what is whole; xos.Invalid, wrapping a Broken, where
// the chain is broken.
func Verify(path string, marks ...Mark) (seq uint64, hash string, err error) {
	hash = zero
	broken := func(format string, args ...any) error {
		return xos.Errorf(xos.Invalid, "audit log %s: %w", path, &Broken{seq + 1, fmt.Sprintf(format, args...)})
	}
	err = scan(path, func(line []byte, err error) error {
		if err != nil {
			return broken("cannot be read: %v", err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return broken("is malformed: %v", err)
		}
		if e.Seq != seq+1 {
			return broken("has the number %d: lines were removed, added or moved", e.Seq)
		}
		if e.Prev != hash {
			return broken("does not follow line %d: that one, or this one, was changed", seq)
		}
		h := sum(line)
		for _, m := range marks {
			if m.Seq == e.Seq && m.Hash != h {
				return broken("is not the one that was noted: its hash is %s", h)
			}
		}
		seq, hash = e.Seq, h
		return nil
	})
	if err != nil {
		return seq, hash, err
	}
	for _, m := range marks {
		if m.Seq > seq {
			return seq, hash, broken("is missing: the log once had %d", m.Seq)
		}
	}
	return seq, hash, nil
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
func scan(path string, f func(line []byte, err error) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
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
