package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

func TestAwaitCredential(t *testing.T) {
	dir := t.TempDir()
	put := func() {
		if err := os.WriteFile(filepath.Join(dir, ".cert"), nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(filepath.Join(dir, ".cert"), filepath.Join(dir, "cert.pem")); err != nil {
			t.Error(err)
		}
	}
	// Other files of the directory are no certificate.
	time.AfterFunc(20*time.Millisecond, func() { os.WriteFile(filepath.Join(dir, "key.pem"), nil, 0o600) })
	came := time.AfterFunc(60*time.Millisecond, put)
	if err := awaitCredential(t.Context(), dir); err != nil {
		t.Error("one that comes:", err)
	}
	if came.Stop() {
		t.Error("it was not waited for")
	}
	if err := awaitCredential(t.Context(), dir); err != nil {
		t.Error("one that is there:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := awaitCredential(ctx, t.TempDir()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("nobody waits any more:", err)
	}
	if err := awaitCredential(t.Context(), filepath.Join(dir, "none")); !xos.Is(err, xos.Unavailable) {
		t.Error("no directory:", err)
	}
}
