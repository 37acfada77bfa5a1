package nssxos_test

import (
	"bytes"
	"context"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// TestRootLineage: a thousand processes, each forked of the last while three
// threads were in lookups of snapshots that are replaced, of one file or two.
// What those held is not lost: the last still has the snapshot mapped, and few
// old ones. What is not the snapshot's is left alone.
func TestRootLineage(t *testing.T) {
	for files, c := range []struct {
		name  string
		large bool
	}{{"one file", false}, {"head and base", true}} {
		t.Run(c.name, func(t *testing.T) { lineage(t, files+1, c.large) })
	}
}

func lineage(t *testing.T, files int, large bool) {
	r := room(t)
	r.Compile(t, "testdata/lineage.c", "lineage", "-pthread")
	replace := publisher(r.Snapshots(), large)
	publish := func(n int) {
		if err := replace(n); err != nil {
			t.Fatal(err)
		}
	}
	publish(0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	whole := r.Command("/run/lib/lineage", "alice@physics", "1000", strconv.Itoa(files))
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
