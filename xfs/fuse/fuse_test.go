package fuse_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/fuse"
	"github.com/xtreemos/xos/xfs/fuse/fusetest"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// mountOf mounts what a client has until the test's end, in this process.
// Tests that start programs or map files must not use it, but a Grid's mount:
// a process that serves its own file system hangs when the collector waits for
// a thread that waits for a page of it, or for a file that starting a program
// closes.
func mountOf(t testing.TB, c *client.Client) string {
	t.Helper()
	need.Root(t)
	need.File(t, "/dev/fuse")
	fs := fuse.New(c, fuse.Identity{Account: "alice@physics", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, slog.New(slog.DiscardHandler))
	dir := t.TempDir()
	server, err := fuse.Mount(fs, xfstest.Volume, dir)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		server.Wait()
	})
	return dir
}

func TestRootCases(t *testing.T) {
	dir := xfstest.StartGrid(t, 0).Mount("node1", client.Config{}).Dir()
	for name, f := range fusetest.Cases {
		t.Run(name, func(t *testing.T) {
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			f(t, sub)
		})
	}
}

// notOurs are go-fuse's cases that want what this file system does not offer.
var notOurs = map[string]string{
	"Fallocate":           "nothing is reserved on the storage",
	"FallocateKeepSize":   "nothing is reserved on the storage",
	"OpenSymlinkRace":     "the case takes no ESTALE; covered by TestRootOpenWhileReplaced",
	"RenameOpenDir":       "the case accepts ESTALE by skipping: a removed directory has no attributes here",
	"Tmpfile":             "O_TMPFILE is not offered",
	"DirectIO":            "the case needs a device's alignment",
	"FcntlFlockSetLk":     "locks are the kernel's; covered by a case of our own",
	"FcntlFlockLocksFile": "locks are the kernel's; covered by a case of our own",
	"LseekHoleSeeksToEOF": "lseek for holes is not offered",
	"LseekEnxioCheck":     "lseek for holes is not offered",
}

func TestRootPosix(t *testing.T) {
	dir := xfstest.StartGrid(t, 0).Mount("node1", client.Config{}).Dir()
	for name, f := range posixtest.All {
		if _, no := notOurs[name]; no {
			continue
		}
		t.Run(name, func(t *testing.T) {
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			f(t, sub)
		})
	}
}
