// Package kv is the contract for transactional records (a key-value store).
// Two engines implement it: kv/pebble, embedded in one process, and kv/etcd,
// for records that several machines share. kv/kvtest is the conformance suite
// that both pass.
//
// Keys and values are bytes; keys are ordered bytewise. A transaction is
// never split: one that exceeds Limits fails with xos.TooLarge. An
// acknowledged Update has been fsynced (by a majority, where there is one).
package kv

import (
	"context"
	"time"
)

// Store is a set of records. It is safe for concurrent use.
type Store interface {
	// View runs f on one consistent snapshot; f must not write.
	View(ctx context.Context, f func(Txn) error) error

	// Update runs f and commits what it wrote, all or nothing and
	// serializable: everything f read, range reads included, is unchanged at
	// the commit, or f is run again. So f must have no effect but through its
	// Txn. An error of f aborts and is returned as it is. After too many
	// conflicts the error is xos.Conflict; if the outcome is not known (the
	// connection broke at the commit) it is xos.Unavailable.
	Update(ctx context.Context, f func(Txn) error) error

	// Watch sends every committed change below prefix with a revision above
	// after, in order and without gaps, until ctx ends; the channel is then
	// closed. after 0 means from now on. If the history needed is gone the
	// error is xos.Expired: read the state anew, then watch from its revision.
	// A watcher that does not read in time has its channel closed early; it
	// must then do the same.
	Watch(ctx context.Context, prefix []byte, after Revision) (<-chan Event, error)

	// Lease makes a lease that ends at ttl after its last KeepAlive. Keys put
	// with it vanish when it ends.
	Lease(ctx context.Context, ttl time.Duration) (Lease, error)

	Limits() Limits
	Close() error
}

// Revision orders commits; each commit has a greater one than all before it.
// It serves as a fencing epoch.
type Revision uint64

// Txn is one transaction's view. It sees its own writes. It must not be used
// after its function returned, or by two goroutines at once.
type Txn interface {
	// Get gives a copy of the value, and whether the key exists.
	Get(key []byte) (value []byte, ok bool, err error)
	// Range calls f for each key with start <= key < end, in order, until f
	// gives false or an error. A nil end means to the last key. key and value
	// are valid only during the call.
	Range(start, end []byte, f func(key, value []byte) (more bool, err error)) error
	Put(key, value []byte) error
	// PutLeased is Put of a key that vanishes with the lease.
	PutLeased(key, value []byte, lease LeaseID) error
	Delete(key []byte) error
	// Revision is that of the snapshot the transaction reads.
	Revision() Revision
}

// LeaseID names a lease within its store.
type LeaseID int64

// Lease is a claim that ends by itself when its holder is gone.
type Lease interface {
	ID() LeaseID
	// KeepAlive prolongs the lease by its ttl; xos.Expired if it has ended.
	KeepAlive(ctx context.Context) error
	// Revoke ends it now.
	Revoke(ctx context.Context) error
}

// Event is one change: Value is nil for a deletion.
type Event struct {
	Key, Value []byte
	Deleted    bool
	Revision   Revision
}

// Limits of one transaction; 0 means none but memory.
type Limits struct {
	Key, Value int // bytes of one
	TxnOps     int // reads and writes together
	TxnBytes   int // written keys and values together
}

// PrefixEnd gives the first key after all that begin with prefix, for Range;
// nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
