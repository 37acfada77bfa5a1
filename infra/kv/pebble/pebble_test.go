package pebble_test

import (
	"testing"

	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
)

func openMemory(t *testing.T) kv.Store {
	s, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestSmoke(t *testing.T) {
	s := openMemory(t)
	if err := s.Update(t.Context(), func(txn kv.Txn) error { return txn.Put([]byte("a"), []byte("b")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.View(t.Context(), func(txn kv.Txn) error {
		v, ok, err := txn.Get([]byte("a"))
		if string(v) != "b" || !ok {
			t.Errorf("%q %v", v, ok)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
