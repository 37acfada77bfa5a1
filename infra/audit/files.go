package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// The actions of the log's own entries. That of expired names in its details
// the last entry that was removed, and that entry's hash: by it the rest is
// still a chain.
const (
	actionExpired = "audit.expired"
	actionSplit   = "audit.split"
	detailLast    = "last"
	detailHash    = "hash"
)

// aside is the name of a file that ends with entry seq.
func aside(path string, seq uint64) string { return fmt.Sprintf("%s.%020d", path, seq) }

// asideFiles gives the files of a log that were put aside, oldest first, and
// the number of the last entry of each.
func asideFiles(path string) (names []string, last []uint64, err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range list {
		digits, ok := strings.CutPrefix(d.Name(), base+".")
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && n > 0 && len(digits) == 20 && d.Type().IsRegular() {
			names, last = append(names, filepath.Join(dir, d.Name())), append(last, n)
		}
	}
	return names, last, nil // ReadDir sorts, and the digits are padded
}

// openAll opens the newest file of a log and names the older ones, such that
// no entry is in two of them or in none, though the log be written meanwhile.
func openAll(path string) (newest *os.File, older []string, last []uint64, err error) {
	if newest, err = os.Open(path); err != nil {
		return nil, nil, nil, err
	}
	older, last, err = asideFiles(path)
	if err != nil {
		newest.Close()
		return nil, nil, nil, err
	}
	// It may have been put aside after it was opened, and others after it.
	for i, name := range older {
		if same(newest, name) {
			older, last = older[:i], last[:i]
			break
		}
	}
	return newest, older, last, nil
}

func same(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// own takes the log for this process.
func own(f *os.File, path string) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return xos.Errorf(xos.Conflict, "another process has it open: %w", err)
	}
	if !same(f, path) {
		return xos.Errorf(xos.Conflict, "another process has just put it aside")
	}
	return nil
}

// lastLine gives the last whole line of the first end bytes of a file, nil if
// there is none, and where it ends.
func lastLine(f *os.File, end int64) (line []byte, whole int64, err error) {
	tail := make([]byte, min(end, 2*maxLine))
	if _, err := f.ReadAt(tail, end-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	n := bytes.LastIndexByte(tail, '\n') + 1
	if n == 0 {
		if end > int64(len(tail)) {
			return nil, 0, xos.Errorf(xos.Invalid, "its end is no line")
		}
		return nil, 0, nil
	}
	return tail[bytes.LastIndexByte(tail[:n-1], '\n')+1 : n-1], end - int64(len(tail)-n), nil
}

// lastAside gives the last line of the newest file that was put aside; nil if
// there is none.
func (l *Log) lastAside() ([]byte, error) {
	names, _, err := asideFiles(l.path)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	f, err := os.Open(names[len(names)-1])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	line, whole, err := lastLine(f, end)
	if err == nil && (line == nil || whole != end) {
		err = xos.Errorf(xos.Invalid, "%s does not end with a line", f.Name())
	}
	return line, err
}

// nextFile begins a new file where the present one is large enough. Where that
// does not succeed the log goes on as it was, and says so.
func (l *Log) nextFile() {
	for l.size >= l.limit && l.syncing {
		l.synced.Wait()
	}
	if l.size < l.limit || l.broken != nil {
		return
	}
	if err := l.split(); err != nil {
		l.limit = l.size + l.fileMax
		l.write(bounded(Record{Actor: "xos", Action: actionSplit, Subject: l.path, Reason: err.Error()}))
		return
	}
	l.limit = l.fileMax
	l.expire()
}

// split puts the file aside. At no moment is there none of the log's name, and
// whoever dies in between has at worst given the file a second one, which
// undoSplit takes away.
func (l *Log) split() error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.durable = l.seq
	l.synced.Broadcast()
	next, err := os.OpenFile(l.path+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	old := aside(l.path, l.seq)
	err = unix.Flock(int(next.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = os.Link(l.path, old)
	}
	if err == nil {
		if err = os.Rename(next.Name(), l.path); err != nil {
			os.Remove(old)
		}
	}
	if err != nil {
		next.Close()
		os.Remove(l.path + ".new")
		return err
	}
	l.file.Close()
	l.file, l.size = next, 0
	if err := syncDir(filepath.Dir(l.path)); err != nil {
		l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
	}
	return nil
}

// undoSplit takes away what a split that was not finished left.
func (l *Log) undoSplit() error {
	if err := os.Remove(l.path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, _, err := asideFiles(l.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if same(l.file, name) {
			return os.Remove(name)
		}
	}
	return nil
}

// expire removes the files that are too old. First an entry says so, without
// which the rest would be no chain.
func (l *Log) expire() {
	if l.keep <= 0 || l.broken != nil {
		return
	}
	names, _, err := asideFiles(l.path)
	if err != nil {
		return // next time
	}
	var last Entry
	var hash string
	old := 0
	for _, name := range names {
		e, h, err := lastEntry(name)
		if err != nil || e.Time.After(l.now().Add(-l.keep)) {
			break
		}
		last, hash = e, h
		old++
	}
	if old == 0 {
		return
	}
	e, h, err := l.write(Record{Actor: "xos", Action: actionExpired, Subject: l.path, Allowed: true,
		Reason: fmt.Sprintf("entries up to %d are older than %v", last.Seq, l.keep),
		Detail: map[string]string{detailLast: strconv.FormatUint(last.Seq, 10), detailHash: hash}})
	if err != nil {
		return
	}
	if err := l.file.Sync(); err != nil {
		l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
		return
	}
	l.durable = l.seq
	l.journal.tell(e, h)
	for _, name := range names[:old] {
		os.Remove(name) // what stays is found the next time
	}
}

func lastEntry(name string) (e Entry, hash string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return e, "", err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return e, "", err
	}
	line, _, err := lastLine(f, end)
	if err != nil {
		return e, "", err
	}
	return e, sum(line), json.Unmarshal(line, &e)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
