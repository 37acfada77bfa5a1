package pebble_test

import (
	"testing"

	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/kvtest"
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

func TestConformance(t *testing.T) { kvtest.Run(t, openMemory) }
