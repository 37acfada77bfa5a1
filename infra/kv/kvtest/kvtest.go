// Package kvtest is the conformance suite of kv: what every engine must do,
// shown through the contract alone.
package kvtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// Run runs the suite. open gives a store that may hold records of others, but
// none below "t/"; the suite does not close it. Each case asks for its own.
func Run(t *testing.T, open func(t *testing.T) kv.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, kv.Store)
	}{
		{"Records", testRecords},
		{"Range", testRange},
		{"OwnWrites", testOwnWrites},
		{"Abort", testAbort},
		{"Misuse", testMisuse},
		{"Limits", testLimits},
		{"Snapshot", testSnapshot},
		{"BankTransfer", testBankTransfer},
		{"WriteSkew", testWriteSkew},
		{"Phantom", testPhantom},
		{"PhantomDelete", testPhantomDelete},
		{"PhantomUnderLoad", testPhantomUnderLoad},
		{"ReadOnlyUpdate", testReadOnlyUpdate},
		{"Revisions", testRevisions},
		{"WatchFromNow", testWatchFromNow},
		{"WatchWithoutGaps", testWatchWithoutGaps},
		{"WatchResume", testWatchResume},
		{"WatchEnds", testWatchEnds},
		{"LeaseExpires", testLeaseExpires},
		{"LeaseKept", testLeaseKept},
		{"LeaseRevoked", testLeaseRevoked},
		{"LeaseLeft", testLeaseLeft},
		{"LeaseConflicts", testLeaseConflicts},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// patience bounds every wait: far beyond what a healthy store needs.
const patience = 20 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func update(t *testing.T, s kv.Store, f func(kv.Txn) error) {
	t.Helper()
	if err := s.Update(deadline(t), f); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func view(t *testing.T, s kv.Store, f func(kv.Txn) error) {
	t.Helper()
	if err := s.View(deadline(t), f); err != nil {
		t.Fatalf("View: %v", err)
	}
}

// put stores pairs of key and value.
func put(t *testing.T, s kv.Store, pairs ...string) {
	t.Helper()
	update(t, s, func(txn kv.Txn) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := txn.Put([]byte(pairs[i]), []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

// list gives "key=value" of a range, in the order it came.
func list(txn kv.Txn, start, end string) ([]string, error) {
	var to []byte
	if end != "" {
		to = []byte(end)
	}
	var got []string
	err := txn.Range([]byte(start), to, func(k, v []byte) (bool, error) {
		got = append(got, string(k)+"="+string(v))
		return true, nil
	})
	return got, err
}

func getInt(txn kv.Txn, key string) (int64, error) {
	v, ok, err := txn.Get([]byte(key))
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", key, len(v))
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

func putInt(txn kv.Txn, key string, n int64) error {
	return txn.Put([]byte(key), binary.BigEndian.AppendUint64(nil, uint64(n)))
}

func wantKind(t *testing.T, err error, k xos.Kind) {
	t.Helper()
	if !xos.Is(err, k) {
		t.Errorf("got error %v, want one of kind %q", err, k)
	}
}

// eventually polls until ok, or fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
