package nssxos_test

import (
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/xtreemos/xos/session/wire"
)

// TestRootLineage: a thousand processes, each forked of the last while three
// threads were in lookups of snapshots that are replaced. What those held is
// not lost: the last still has the snapshot mapped, and few old ones.
func TestRootLineage(t *testing.T) {
	r := room(t)
	r.Compile(t, "testdata/lineage.c", "lineage", "-pthread")
	publish := func(n int) {
		if err := wire.WriteSnapshot(r.Snapshots(), numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	publish(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	whole := r.Command("/run/lib/lineage", "alice@physics", "1000")
	c := exec.CommandContext(ctx, whole.Path, whole.Args[1:]...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	for n := 1; ; n++ {
		publish(n)
		select {
		case err := <-done:
			if err != nil || out.Len() > 0 {
				t.Errorf("%v\n%s", err, out.String())
			}
			t.Logf("%d snapshots", n)
			return
		case <-time.After(time.Millisecond):
		}
	}
}
