// Package audit keeps the log of decisions: who asked for what, what was
// answered and why. It is a file of JSON lines, each with the SHA-256 of the
// line before it, so that a line cannot be changed, removed or put in between
// without breaking the chain. An entry is on the disk when Append returns.
//
// The chain shows tampering to whoever has the hash of a later line; keep
// Head elsewhere (the journal, another machine) to know that the end was not
// cut off.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Record is one decision. Strings are cut where they are longer than an audit
// needs.
type Record struct {
	// Actor is who asked: "root", "alice@physics", "node1 (node)", or the
	// address of somebody unknown.
	Actor string `json:"actor"`
	// Action is what was asked for: "login", "vom.RemoveMember".
	Action string `json:"action"`
	// Subject is what it was asked for: "alice@physics", "job core-7f3a09c2".
	Subject string `json:"subject,omitempty"`
	// VO and User are whom it concerned, where it did: what the log is searched
	// for, and by whose VO a reader's right is judged.
	VO      xos.VOName `json:"vo,omitempty"`
	User    xos.UserID `json:"user,omitempty"`
	Allowed bool       `json:"allowed"`
	Reason  string     `json:"reason,omitempty"`
	// Request ties the entries of one request together; Policy is the hash of
	// the policy that decided.
	Request string `json:"request,omitempty"`
	Policy  string `json:"policy,omitempty"`
	// Detail is anything else worth keeping. Never a secret.
	Detail map[string]string `json:"detail,omitempty"`
}

// Entry is a record as it stands in the log.
type Entry struct {
	Seq  uint64    `json:"seq"` // 1 for the first
	Time time.Time `json:"time"`
	Prev string    `json:"prev"` // SHA-256 of the previous line, hex; 64 zeros for the first
	Record
}

const (
	maxString = 512 // bytes of one string of a record
	maxDetail = 8   // details of a record; with escapes a line stays below maxLine
	maxLine   = 64 << 10
)

var zero = strings.Repeat("0", 2*sha256.Size)

// Log is an open log; only one process has it open for writing. It is safe
// for concurrent use.
type Log struct {
	path string
	file *os.File

	mu      sync.Mutex
	synced  *sync.Cond
	seq     uint64 // of the last line
	durable uint64 // seq up to which the disk has it
	size    int64
	prev    string
	syncing bool
	broken  error
}

// Open opens the log at path or makes it, readable by its owner only. A last
// line that a crash cut short, and that was therefore never acknowledged, is
// removed. xos.Conflict if another process has it open.
func Open(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{path: path, file: f}
	l.synced = sync.NewCond(&l.mu)
	if err := l.recover(); err != nil {
		f.Close()
		return nil, fmt.Errorf("audit log %s: %w", path, err)
	}
	return l, nil
}

func (l *Log) recover() error {
	if err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return xos.Errorf(xos.Conflict, "another process has it open: %w", err)
	}
	end, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	tail := make([]byte, min(end, 2*maxLine))
	if _, err := l.file.ReadAt(tail, end-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if torn := len(tail) - whole; torn > 0 {
		if whole == 0 && end > int64(len(tail)) {
			return xos.Errorf(xos.Invalid, "its end is no line")
		}
		end -= int64(torn)
		if err := l.file.Truncate(end); err != nil {
			return err
		}
		if err := l.file.Sync(); err != nil {
			return err
		}
	}
	l.size, l.prev = end, zero
	if whole == 0 {
		return syncDir(filepath.Dir(l.path))
	}
	last := tail[bytes.LastIndexByte(tail[:whole-1], '\n')+1 : whole-1]
	var e Entry
	if err := json.Unmarshal(last, &e); err != nil || e.Seq == 0 {
		return xos.Errorf(xos.Invalid, "its last line is malformed").WithHint("move the file away; audit.Verify says how far it is whole")
	}
	l.seq, l.durable, l.prev = e.Seq, e.Seq, sum(last)
	return nil
}

// Append adds a record and returns when it is on the disk; concurrent calls
// share one fsync. It does not heed the end of ctx: what was decided is
// written. After a failure of the disk every call fails.
func (l *Log) Append(_ context.Context, r Record) error {
	r = bounded(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	line, err := json.Marshal(Entry{Seq: l.seq + 1, Time: time.Now().UTC(), Prev: l.prev, Record: r})
	if err != nil {
		return err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		if cut := l.file.Truncate(l.size); cut != nil {
			l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, cut)
		}
		return xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
	}
	l.seq++
	l.size += int64(len(line)) + 1
	l.prev = sum(line)
	for mine := l.seq; l.durable < mine; {
		if l.broken != nil {
			return l.broken
		}
		if l.syncing {
			l.synced.Wait()
			continue
		}
		l.syncing = true
		upTo := l.seq
		l.mu.Unlock()
		err := l.file.Sync()
		l.mu.Lock()
		l.syncing = false
		if err != nil {
			l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
		} else {
			l.durable = upTo
		}
		l.synced.Broadcast()
	}
	return nil
}

// Head gives the number and the hash of the last line.
func (l *Log) Head() (seq uint64, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.prev
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = xos.Errorf(xos.Unavailable, "audit log %s is closed", l.path)
	}
	return l.file.Close()
}

func bounded(r Record) Record {
	for _, s := range []*string{&r.Actor, &r.Action, &r.Subject, &r.Reason, &r.Request, &r.Policy} {
		*s = cut(*s)
	}
	r.VO, r.User = xos.VOName(cut(string(r.VO))), xos.UserID(cut(string(r.User)))
	if len(r.Detail) > 0 {
		d := map[string]string{}
		for k, v := range r.Detail {
			if len(d) < maxDetail {
				d[cut(k)] = cut(v)
			}
		}
		r.Detail = d
	}
	return r
}

// cut shortens s at the bound, between characters.
func cut(s string) string {
	if len(s) <= maxString {
		return s
	}
	n := maxString
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func sum(line []byte) string {
	h := sha256.Sum256(line)
	return hex.EncodeToString(h[:])
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
