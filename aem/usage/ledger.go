package usage

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// Ledger is a machine's own records, in a directory that is root's:
//
//	open/JOB.json   a job that runs, or whose end the core does not know yet
//	stays/ID.json   the same of a stay
//	2026-11.jsonl   what ended in that month, a record a line, UTC
//
// All that it says is kept is on disk. A record that is in both counts once: the
// machine stopped between writing the one and removing the other.
type Ledger struct {
	dir  string
	keep time.Duration
	now  func() time.Time
	log  *slog.Logger

	// Locks are taken in this order. Only mu is not held while the disk is waited for.
	writing  locks[string] // by ID: the record's file
	settling sync.Mutex    // the months' files

	mu   sync.Mutex
	open map[string]*xosv1.UsageRecord // by ID, never changed in place
	news chan struct{}
}

const (
	openDir = "open"
	stayDir = "stays"
	month   = "2006-01"
	lines   = ".jsonl"
)

// OpenLedger opens the ledger in dir, or begins it. Records that ended longer
// than keep ago are forgotten, by whole months; 0 is 400 days. An open record that
// the disk has damaged is put aside, since jobs and logins must go on.
func OpenLedger(dir string, keep time.Duration, now func() time.Time, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{dir: dir, keep: cmp.Or(keep, 400*24*time.Hour), now: now, log: log, open: map[string]*xosv1.UsageRecord{}, news: make(chan struct{}, 1)}
	for _, sub := range []string{openDir, stayDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, xos.Errorf(xos.Internal, "making %s: %w", dir, err)
		}
	}
	if err := l.repair(); err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the records of usage in %s: %w", dir, err)
	}
	for _, sub := range []string{openDir, stayDir} {
		if err := l.load(sub); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// load reads the open records in a directory.
func (l *Ledger) load(sub string) error {
	names, err := os.ReadDir(filepath.Join(l.dir, sub))
	if err != nil {
		return xos.Errorf(xos.Internal, "reading %s: %w", l.dir, err)
	}
	for _, e := range names {
		at := filepath.Join(l.dir, sub, e.Name())
		id, found := strings.CutSuffix(e.Name(), ".json")
		if !found || !validID(id) {
			os.Remove(at) // what was being written when the machine stopped
			continue
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return xos.Errorf(xos.Internal, "reading what %s used: %w", id, err)
		}
		r, err := decode(data)
		if err != nil || ID(r) != id {
			l.log.Error("the record of what a job or stay used is damaged, and put aside", "id", id, "error", err)
			if err := os.Rename(at, filepath.Join(l.dir, "damaged-"+e.Name())); err != nil {
				return err
			}
			continue
		}
		l.open[id] = r
	}
	return nil
}

// path is where an open record is kept.
func (l *Ledger) path(r *xosv1.UsageRecord) string {
	sub := openDir
	if r.Stay != "" {
		sub = stayDir
	}
	return filepath.Join(l.dir, sub, ID(r)+".json")
}

// repair cuts off lines that the machine stopped within; what was to be in them
// is still in an open record.
func (l *Ledger) repair() error {
	months, err := l.months()
	if err != nil {
		return err
	}
	for _, at := range months {
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		if whole := bytes.LastIndexByte(data, '\n') + 1; whole < len(data) {
			if err := os.Truncate(at, int64(whole)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Ledger) months() ([]string, error) {
	names, err := filepath.Glob(filepath.Join(l.dir, "????-??"+lines))
	slices.Sort(names)
	return names, err
}

// decode reads a record as it is on disk.
func decode(data []byte) (*xosv1.UsageRecord, error) {
	r := &xosv1.UsageRecord{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, r); err != nil {
		return nil, err
	}
	return r, nil
}

// encode gives a record as one line.
func encode(r *xosv1.UsageRecord) ([]byte, error) {
	data, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil {
		return nil, err
	}
	line.WriteByte('\n')
	return line.Bytes(), nil
}

// Put keeps a record in the place of an earlier one of the job or stay. A final one
// stays. It is on disk when this returns. Records of one job or stay are put one
// after the other; those of different ones do not wait for each other.
func (l *Ledger) Put(r *xosv1.UsageRecord) error {
	if err := Check(r, l.now()); err != nil {
		return err
	}
	r = proto.CloneOf(r)
	data, err := encode(r)
	if err != nil {
		return err
	}
	id := ID(r)
	defer l.writing.lock(id)()
	l.mu.Lock()
	old := l.open[id]
	l.mu.Unlock()
	if old != nil && old.Final {
		return nil
	}
	if err := unit.Write(l.path(r), json.RawMessage(data)); err != nil {
		return xos.Errorf(xos.Unavailable, "keeping what %s used: %w", id, err)
	}
	l.mu.Lock()
	l.open[id] = r
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return nil
}

// Open gives the record of a job that is not settled; nil if there is none.
func (l *Ledger) Open(id xos.JobID) *xosv1.UsageRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.open[string(id)]; r != nil {
		return proto.CloneOf(r)
	}
	return nil
}

// unsettled gives all that are not.
func (l *Ledger) unsettled() []*xosv1.UsageRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.open))
}

// Stays gives the records of stays that are not over.
func (l *Ledger) Stays() []*xosv1.UsageRecord {
	return slices.DeleteFunc(l.unsettled(), func(r *xosv1.UsageRecord) bool { return r.Stay == "" || r.Final })
}

// Abandon ends the records of jobs that run, as far as is known, and of which
// alive does not know: the machine stopped under them.
func (l *Ledger) Abandon(alive func(xos.JobID) bool) error {
	var errs []error
	for _, r := range l.unsettled() {
		if r.Final || r.Job == "" || alive(xos.JobID(r.Job)) {
			continue
		}
		r = proto.CloneOf(r)
		r.Final, r.Incomplete = true, true
		errs = append(errs, l.Put(r))
	}
	return errors.Join(errs...)
}

// settle moves a final record, which the core knows, to those of its month.
func (l *Ledger) settle(r *xosv1.UsageRecord) error {
	line, err := encode(r)
	if err != nil {
		return err
	}
	defer l.writing.lock(ID(r))()
	l.settling.Lock()
	defer l.settling.Unlock()
	at := filepath.Join(l.dir, r.Until.AsTime().Format(month)+lines)
	if err := appendLine(at, line); err != nil {
		return xos.Errorf(xos.Unavailable, "keeping what %s used: %w", ID(r), err)
	}
	if err := os.Remove(l.path(r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.mu.Lock()
	delete(l.open, ID(r))
	l.mu.Unlock()
	return l.forget()
}

// appendLine adds to a file, all or nothing as far as this process sees, and on
// disk.
func appendLine(at string, line []byte) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err = f.Write(line); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Truncate(st.Size()))
	}
	if st.Size() > 0 {
		return nil
	}
	dir, err := os.Open(filepath.Dir(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// forget removes months that are over for longer than records are kept.
func (l *Ledger) forget() error {
	months, err := l.months()
	if err != nil {
		return err
	}
	for _, at := range months {
		first, err := time.Parse(month, strings.TrimSuffix(filepath.Base(at), lines))
		if err == nil && first.AddDate(0, 1, 0).Add(l.keep).Before(l.now()) {
			if err := os.Remove(at); err != nil {
				return err
			}
		}
	}
	return nil
}
