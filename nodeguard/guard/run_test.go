package guard

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/test/need"
)

// TestRootEndingIsNoFailure: a guard that is to end while it begins to watch does, and
// says nothing of a watch that is closed.
func TestRootEndingIsNoFailure(t *testing.T) {
	need.Root(t)
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "user.slice"), 0o755); err != nil {
		t.Fatal(err)
	}
	cgroups, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: uint32(unsafe.Sizeof(bpf.LsmXosCgroup{})), MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cgroups.Close()
	g := &Guard{log: slog.New(slog.DiscardHandler), labels: &labels{root: root, cgroups: cgroups}}
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.watchSlices(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
