package fuse_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/fuse"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// A name that is missing is remembered by the kernel, shortly: systemd looks for
// the same one dozens of times in a row.
func TestMissingNames(t *testing.T) {
	c := xfstest.Start(t, 0).Client("node1", client.Config{})
	fs := fuse.New(c, fuse.Identity{Account: "alice@physics", UID: 1, GID: 1}, slog.New(slog.DiscardHandler))
	root := &gofuse.InHeader{NodeId: gofuse.FUSE_ROOT_ID}
	var out gofuse.EntryOut
	if s := fs.Lookup(nil, root, "missing", &out); s != gofuse.OK || out.NodeId != 0 {
		t.Fatalf("%v, node %d: the kernel does not remember it", s, out.NodeId)
	}
	if ttl := out.EntryTimeout(); ttl <= 0 || ttl > 50*time.Millisecond {
		t.Errorf("it is missing for %v", ttl)
	}
	// Anything else that goes wrong is no missing name.
	gone := &gofuse.InHeader{NodeId: 1 << 40}
	out = gofuse.EntryOut{}
	if s := fs.Lookup(nil, gone, "missing", &out); s == gofuse.OK {
		t.Errorf("in a directory that is not there: %v", s)
	}
}

// What this machine makes is there at once, however lately it was missing.
func TestRootMissingNameIsMade(t *testing.T) {
	dir := mountOf(t, xfstest.Start(t, 0).Client("node1", client.Config{}))
	must(t, os.WriteFile(filepath.Join(dir, "old"), nil, 0o600))
	for name, make := range map[string]func(path string) error{
		"create":  func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"mkdir":   func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink": func(p string) error { return os.Symlink("old", p) },
		"link":    func(p string) error { return os.Link(filepath.Join(dir, "old"), p) },
	} {
		wantMade(t, filepath.Join(dir, name), make)
	}
	wantMade(t, filepath.Join(dir, "renamed"), func(p string) error { return os.Rename(filepath.Join(dir, "create"), p) })
	if exists(filepath.Join(dir, "create")) {
		t.Error("the former name is still there")
	}
}

func wantMade(t *testing.T, path string, make func(string) error) {
	t.Helper()
	if exists(path) {
		t.Fatalf("%s is there already", path)
	}
	must(t, make(path))
	if !exists(path) {
		t.Errorf("%s is not there", path)
	}
}
