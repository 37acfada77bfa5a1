package pebble

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// The key spaces inside Pebble, by first byte.
var (
	revisionKey = []byte("r") // the last commit's revision
	dataSpace   = byte('d')   // 'd' key -> lease (8 bytes) value
	leaseSpace  = byte('l')   // 'l' id -> ttl
	holdSpace   = byte('h')   // 'h' id key -> nothing: the lease may hold the key
)

func dataKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), dataSpace), key...)
}

// leaseKey makes a key of a lease's own space, or of what it holds.
func leaseKey(space byte, id kv.LeaseID, key string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{space}, uint64(id))
	return append(b, key...)
}

func encodeValue(value []byte, lease kv.LeaseID) []byte {
	b := make([]byte, 0, 8+len(value))
	b = binary.BigEndian.AppendUint64(b, uint64(lease))
	return append(b, value...)
}

// decodeValue gives a slice of raw.
func decodeValue(raw []byte) (value []byte, lease kv.LeaseID, err error) {
	if len(raw) < 8 {
		return nil, 0, xos.Errorf(xos.Internal, "a stored record of %d bytes is cut off", len(raw))
	}
	return raw[8:], kv.LeaseID(binary.BigEndian.Uint64(raw)), nil
}

// version is the state at one revision. It implements overlay.Snapshot.
type version struct {
	rev  kv.Revision
	snap *pebble.Snapshot
	refs int // guarded by Store.mu
}

// releaseLocked gives up one reference.
func (s *Store) releaseLocked(v *version) {
	v.refs--
	if v.refs > 0 {
		return
	}
	if err := v.snap.Close(); err != nil {
		s.log.Error("close a snapshot of the records", "err", err)
	}
}

func (v *version) Revision() kv.Revision { return v.rev }

func (v *version) Get(key []byte) ([]byte, bool, error) {
	value, _, ok, err := v.get(key)
	return value, ok, err
}

func (v *version) get(key []byte) (value []byte, lease kv.LeaseID, ok bool, err error) {
	raw, closer, err := v.snap.Get(dataKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, xos.Errorf(xos.Internal, "read a record: %w", err)
	}
	value, lease, err = decodeValue(raw)
	value = append([]byte{}, value...)
	if err := errors.Join(err, closer.Close()); err != nil {
		return nil, 0, false, xos.Errorf(xos.Internal, "read a record: %w", err)
	}
	return value, lease, true, nil
}

func (v *version) Range(start, end []byte, f func(key, value []byte) (bool, error)) (err error) {
	opts := &pebble.IterOptions{LowerBound: dataKey(start), UpperBound: []byte{dataSpace + 1}}
	if end != nil {
		opts.UpperBound = dataKey(end)
	}
	it, err := v.snap.NewIter(opts)
	if err != nil {
		return xos.Errorf(xos.Internal, "read a range of records: %w", err)
	}
	defer func() {
		if cerr := it.Close(); cerr != nil && err == nil {
			err = xos.Errorf(xos.Internal, "read a range of records: %w", cerr)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		raw, err := it.ValueAndErr()
		if err != nil {
			return xos.Errorf(xos.Internal, "read a range of records: %w", err)
		}
		value, _, err := decodeValue(raw)
		if err != nil {
			return err
		}
		if more, err := f(it.Key()[1:], value); err != nil || !more {
			return err
		}
	}
	return nil // an error of the iterator comes with Close
}
