package etcd

import (
	"context"
	"testing"
	"time"

	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/kvtest"
)

func startEmbedded(t *testing.T) *Embedded {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := StartEmbedded(ctx, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func TestConformance(t *testing.T) {
	e := startEmbedded(t)
	kvtest.Run(t, func(t *testing.T) kv.Store {
		s := e.Store(t.Name() + "/")
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return s
	})
}
