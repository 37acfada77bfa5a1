// Package audit keeps the log of decisions: who asked for what, what was
// answered and why. It is a file of JSON lines, each with the SHA-256 of the
// line before it, so that a line cannot be changed, removed or put in between
// without breaking the chain. An entry is on the disk when Append returns.
//
// The chain shows tampering to whoever has the hash of a later line; a Journal
// keeps them elsewhere, so that one knows whether the end was cut off.
//
// A file that has become large is put aside under the number of its last
// entry, and the chain goes on in a new one:
//
//	audit.log.00000000000000081236
//	audit.log.00000000000000163018
//	audit.log
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	// address of somebody unknown. It is an account only where its certificate
	// was verified.
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
	// Admitted is of what was asked by who had the right to: if it came to
	// nothing, that is no refusal, and has a line in a Bounded log too.
	Admitted bool `json:"-"`
	// Origin is whose a refusal is, where who writes it down knows that.
	Origin Origin `json:"-"`
	Reason string `json:"reason,omitempty"`
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
	path    string
	fileMax int64         // bytes at which a file is put aside
	keep    time.Duration // how long those are kept; 0: for ever
	journal *Journal
	now     func() time.Time

	mu      sync.Mutex
	synced  *sync.Cond
	file    *os.File
	seq     uint64 // of the last line
	durable uint64 // seq up to which the disk has it
	size    int64
	limit   int64 // size at which the next file is tried
	prev    string
	syncing bool
	broken  error
}

// Option changes how a log is kept.
type Option func(*Log)

// FileMax puts files aside at that many bytes; 64 MiB without it.
func FileMax(bytes int64) Option { return func(l *Log) { l.fileMax = bytes } }

// Keep removes files of which every entry is older than d, when the log is
// opened and when a new file is begun; what was removed is an entry itself.
// 0, and a log without this option, keeps everything.
func Keep(d time.Duration) Option { return func(l *Log) { l.keep = d } }

// To tells a journal of each entry that is on the disk.
func To(j *Journal) Option { return func(l *Log) { l.journal = j } }

// Clock takes the time from now.
func Clock(now func() time.Time) Option { return func(l *Log) { l.now = now } }

// Open opens the log at path or makes it, readable by its owner only. A last
// line that a crash cut short, and that was therefore never acknowledged, is
// removed. xos.Conflict if another process has it open.
func Open(path string, opts ...Option) (*Log, error) {
	l := &Log{path: path, fileMax: 64 << 20, now: time.Now}
	for _, o := range opts {
		o(l)
	}
	l.synced = sync.NewCond(&l.mu)
	l.limit = l.fileMax
	var err error
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	if err := l.recover(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("audit log %s: %w", path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l, nil
}

func (l *Log) recover() error {
	if err := own(l.file, l.path); err != nil {
		return err
	}
	if err := l.undoSplit(); err != nil {
		return err
	}
	end, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	last, whole, err := lastLine(l.file, end)
	if err != nil {
		return err
	}
	if whole < end {
		if err := l.file.Truncate(whole); err != nil {
			return err
		}
		if err := l.file.Sync(); err != nil {
			return err
		}
	}
	l.size, l.prev = whole, zero
	if whole == 0 {
		if last, err = l.lastAside(); err != nil {
			return err
		}
	}
	if last == nil {
		return syncDir(filepath.Dir(l.path))
	}
	var e Entry
	if err := json.Unmarshal(last, &e); err != nil || e.Seq == 0 {
		return xos.Errorf(xos.Invalid, "its last line is malformed").WithHint("move the file away; audit.Verify says how far it is whole")
	}
	l.seq, l.durable, l.prev = e.Seq, e.Seq, sum(last)
	return nil
}

// Note is Append. It says whether the record has a line, which in this log each
// has that was written.
func (l *Log) Note(ctx context.Context, r Record) (line bool, err error) {
	err = l.Append(ctx, r)
	return err == nil, err
}

// Append adds a record and returns when it is on the disk; concurrent calls
// share one fsync. It does not heed the end of ctx: what was decided is
// written. After a failure of the disk every call fails.
func (l *Log) Append(_ context.Context, r Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextFile()
	e, hash, err := l.write(bounded(r))
	if err != nil {
		return err
	}
	for l.durable < e.Seq {
		if l.broken != nil {
			return l.broken
		}
		if l.syncing {
			l.synced.Wait()
			continue
		}
		l.sync()
	}
	l.journal.tell(e, hash)
	return nil
}

// write adds a line, which is not yet on the disk.
func (l *Log) write(r Record) (e Entry, hash string, err error) {
	if l.broken != nil {
		return e, "", l.broken
	}
	e = Entry{Seq: l.seq + 1, Time: l.now().UTC(), Prev: l.prev, Record: r}
	line, err := json.Marshal(e)
	if err != nil {
		return e, "", err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		if cut := l.file.Truncate(l.size); cut != nil {
			l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, cut)
		}
		return e, "", xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
	}
	l.seq++
	l.size += int64(len(line)) + 1
	l.prev = sum(line)
	return e, l.prev, nil
}

// sync brings to the disk what was written, for everybody who waits.
func (l *Log) sync() {
	l.syncing = true
	upTo, file := l.seq, l.file
	l.mu.Unlock()
	err := file.Sync()
	l.mu.Lock()
	l.syncing = false
	switch {
	case err == nil:
		l.durable = upTo
	case l.broken == nil:
		l.broken = xos.Errorf(xos.Unavailable, "audit log %s: %w", l.path, err)
	}
	l.synced.Broadcast()
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
