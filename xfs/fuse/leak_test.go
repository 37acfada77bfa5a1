package fuse_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// descriptors is how many this process has, without those of the epoll kind
// and of regular files, which come and go with the services' records.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/dev/fuse")) {
			n++
		}
	}
	return n
}

// TestRootNothingLeft: mounts that have ended leave no goroutine, descriptor
// or mount in the program that had them.
func TestRootNothingLeft(t *testing.T) {
	s := xfstest.Start(t, 0)
	use := func(n int) {
		t.Run(fmt.Sprint("mount ", n), func(t *testing.T) {
			dir := mountOf(t, s.ClientOf(t, "node1", client.Config{}))
			must(t, store(filepath.Join(dir, "f"), fill(300_000, "mount", n)))
			wantFile(t, filepath.Join(dir, "f"), fill(300_000, "mount", n))
		})
	}
	use(0)
	var goroutines, fds int
	eventually(t, "rest", func() bool {
		was := runtime.NumGoroutine()
		goroutines, fds = was, descriptors(t)
		return runtime.NumGoroutine() == was
	})
	for n := range 15 {
		use(n + 1)
	}
	eventually(t, "goroutines and descriptors are gone", func() bool {
		return runtime.NumGoroutine() <= goroutines+3 && descriptors(t) <= fds+2
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if strings.Contains(string(mounts), t.Name()) {
		t.Error("something is still mounted")
	}
}
