// Package overlay is the transaction that every engine of kv hands out: a
// buffer of writes laid over a snapshot, which remembers what was read. The
// engine then only has to serve a snapshot, and to commit the changes if
// nothing that was read has changed since.
package overlay

import (
	"bytes"
	"slices"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// Snapshot is one consistent, unchanging state of the records.
type Snapshot interface {
	// Get gives a copy of the value.
	Get(key []byte) (value []byte, ok bool, err error)
	// Range is that of kv.Txn.
	Range(start, end []byte, f func(key, value []byte) (more bool, err error)) error
	Revision() kv.Revision
}

// Change is one written key.
type Change struct {
	Key     string
	Value   []byte // never nil unless Deleted
	Deleted bool
	Lease   kv.LeaseID // 0 for none
}

// Span is a range that was read: Start <= key < End, or to the last key.
type Span struct {
	Start, End string
	Unbounded  bool
}

// Has reports whether key lies in the span.
func (s Span) Has(key string) bool {
	return key >= s.Start && (s.Unbounded || key < s.End)
}

// Txn implements kv.Txn.
type Txn struct {
	snap     Snapshot
	limits   kv.Limits
	writable bool
	ended    bool
	failed   error // a refused write dooms the transaction, even if f ignores it

	writes map[string]Change
	reads  map[string]struct{}
	spans  []Span
	ops    int
	bytes  int
}

var _ kv.Txn = (*Txn)(nil)

// New lays a transaction over snap. One that is not writable remembers no
// reads.
func New(snap Snapshot, limits kv.Limits, writable bool) *Txn {
	t := &Txn{snap: snap, limits: limits, writable: writable}
	if writable {
		t.writes, t.reads = map[string]Change{}, map[string]struct{}{}
	}
	return t
}

// End makes every further use an error, and gives what doomed the transaction.
func (t *Txn) End() error {
	t.ended = true
	return t.failed
}

// Changes gives what was written, sorted by key.
func (t *Txn) Changes() []Change { return t.within("", "", true) }

// Reads gives the single keys that were read, in no order.
func (t *Txn) Reads() []string {
	keys := make([]string, 0, len(t.reads))
	for k := range t.reads {
		keys = append(keys, k)
	}
	return keys
}

// Spans gives the ranges that were read.
func (t *Txn) Spans() []Span { return t.spans }

// HasRead reports whether a change of key would change what the transaction
// has read.
func (t *Txn) HasRead(key string) bool {
	if _, ok := t.reads[key]; ok {
		return true
	}
	for _, s := range t.spans {
		if s.Has(key) {
			return true
		}
	}
	return false
}

// Revision implements kv.Txn.
func (t *Txn) Revision() kv.Revision { return t.snap.Revision() }

// Get implements kv.Txn.
func (t *Txn) Get(key []byte) ([]byte, bool, error) {
	if err := t.usable(); err != nil {
		return nil, false, err
	}
	if c, ok := t.writes[string(key)]; ok {
		return bytes.Clone(c.Value), !c.Deleted, nil
	}
	if len(key) == 0 {
		return nil, false, nil
	}
	if t.writable {
		if _, again := t.reads[string(key)]; !again {
			if err := t.count(1, 0); err != nil {
				return nil, false, err
			}
			t.reads[string(key)] = struct{}{}
		}
	}
	return t.snap.Get(key)
}

// Range implements kv.Txn. It shows the writes made before it began; those
// that f makes are seen by the next one.
func (t *Txn) Range(start, end []byte, f func(key, value []byte) (bool, error)) error {
	if err := t.usable(); err != nil {
		return err
	}
	if end != nil && bytes.Compare(start, end) >= 0 {
		return nil
	}
	span := Span{Start: string(start), End: string(end), Unbounded: end == nil}
	if t.writable {
		if err := t.count(1, 0); err != nil {
			return err
		}
		// Appended before f runs, so that an error cannot lose it; shortened
		// if f stops early.
		t.spans = append(t.spans, span)
	}
	mine := len(t.spans) - 1
	stop := func(last string) {
		if t.writable {
			t.spans[mine] = Span{Start: span.Start, End: last + "\x00"}
		}
	}
	return t.merge(span, t.within(span.Start, span.End, span.Unbounded), stop, f)
}

// merge calls f for the snapshot's records and own ones, in order; stop is
// told the last key when f wants no more.
func (t *Txn) merge(span Span, own []Change, stop func(string), f func(key, value []byte) (bool, error)) error {
	stopped := false
	emit := func(key string, raw, value []byte) (bool, error) {
		if raw == nil {
			raw = []byte(key)
		}
		more, err := f(raw, value)
		if err == nil && !more {
			stopped = true
			stop(key)
		}
		return more && err == nil, err
	}
	// before emits own writes below key, or all of them.
	before := func(key string, all bool) (bool, error) {
		for len(own) > 0 && (all || own[0].Key < key) {
			c := own[0]
			own = own[1:]
			if c.Deleted {
				continue
			}
			if more, err := emit(c.Key, nil, bytes.Clone(c.Value)); !more || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	var end []byte
	if !span.Unbounded {
		end = []byte(span.End)
	}
	err := t.snap.Range([]byte(span.Start), end, func(raw, value []byte) (bool, error) {
		key := string(raw)
		if more, err := before(key, false); !more || err != nil {
			return false, err
		}
		if len(own) > 0 && own[0].Key == key {
			return before(key+"\x00", false)
		}
		return emit(key, raw, value)
	})
	if err != nil || stopped {
		return err
	}
	_, err = before("", true)
	return err
}

// within gives own writes of a range, sorted.
func (t *Txn) within(start, end string, unbounded bool) []Change {
	var own []Change
	for k, c := range t.writes {
		if k >= start && (unbounded || k < end) {
			own = append(own, c)
		}
	}
	slices.SortFunc(own, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return own
}

// Put implements kv.Txn.
func (t *Txn) Put(key, value []byte) error { return t.PutLeased(key, value, 0) }

// PutLeased implements kv.Txn.
func (t *Txn) PutLeased(key, value []byte, lease kv.LeaseID) error {
	return t.write(Change{Key: string(key), Value: append([]byte{}, value...), Lease: lease})
}

// Delete implements kv.Txn.
func (t *Txn) Delete(key []byte) error {
	return t.write(Change{Key: string(key), Deleted: true})
}

func (t *Txn) write(c Change) error {
	if err := t.usable(); err != nil {
		return err
	}
	if !t.writable {
		return xos.Errorf(xos.Invalid, "write in a View")
	}
	switch l := t.limits; {
	case c.Key == "":
		return t.fail(xos.Errorf(xos.Invalid, "a record's key is empty"))
	case l.Key > 0 && len(c.Key) > l.Key:
		return t.fail(xos.Errorf(xos.TooLarge, "a record's key has %d bytes, %d are allowed", len(c.Key), l.Key))
	case l.Value > 0 && len(c.Value) > l.Value:
		return t.fail(xos.Errorf(xos.TooLarge, "a record has %d bytes, %d are allowed", len(c.Value), l.Value))
	}
	old, again := t.writes[c.Key]
	ops, size := 1, len(c.Key)+len(c.Value)
	if again {
		ops, size = 0, len(c.Value)-len(old.Value)
	}
	if err := t.count(ops, size); err != nil {
		return err
	}
	t.writes[c.Key] = c
	return nil
}

func (t *Txn) usable() error {
	if t.ended {
		return xos.Errorf(xos.Internal, "transaction used after its end")
	}
	return t.failed
}

func (t *Txn) count(ops, size int) error {
	t.ops += ops
	t.bytes += size
	if m := t.limits.TxnOps; m > 0 && t.ops > m {
		return t.fail(xos.Errorf(xos.TooLarge, "a transaction of more than %d reads and writes", m))
	}
	if m := t.limits.TxnBytes; m > 0 && t.bytes > m {
		return t.fail(xos.Errorf(xos.TooLarge, "a transaction writes more than %d bytes", m))
	}
	return nil
}

func (t *Txn) fail(err error) error {
	t.failed = err
	return err
}
