package audit

import (
	"bytes"
	"encoding/json"
	"errors"
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
