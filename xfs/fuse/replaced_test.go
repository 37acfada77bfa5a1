package fuse_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// TestRootOpenWhileReplaced: a name is a file and a link by turns. Whoever opens
// it gets the one or what the link names, and never a mixture: /etc/passwd as if
// it were the volume's. The kernel asks twice what a name is; where it was
// replaced both times, an open says ESTALE, as on other network file systems.
func TestRootOpenWhileReplaced(t *testing.T) {
	dir := xfstest.StartGrid(t, 0).Mount("node1", client.Config{}).Dir()
	path, next := filepath.Join(dir, "name"), filepath.Join(dir, "next")
	var volume syscall.Stat_t
	if err := syscall.Stat(dir, &volume); err != nil {
		t.Fatal(err)
	}
	put := func(make func() error) error {
		if err := make(); err != nil {
			return err
		}
		return os.Rename(next, path)
	}
	file := func() error { return os.WriteFile(next, nil, 0o600) }
	link := func() error { return os.Symlink("/etc/passwd", next) }
	if err := put(file); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(put(link), put(file)); err != nil {
				done <- err
				return
			}
		}
	}()
	files, links, neither := 0, 0, map[error]int{}
	for files < 30 || links < 30 {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch err {
		case nil:
		case syscall.ENOENT, syscall.ELOOP, syscall.EINVAL, syscall.ESTALE:
			neither[err]++
			continue
		default:
			t.Fatalf("open: %v", err)
		}
		var st syscall.Stat_t
		err = syscall.Fstat(fd, &st)
		syscall.Close(fd)
		switch {
		case err == syscall.ESTALE: // removed since
			neither[err]++
		case err != nil:
			t.Fatalf("fstat: %v", err)
		case st.Dev != volume.Dev:
			links++
		case st.Size == 0:
			files++
		default:
			t.Fatalf("a file of the volume has %d bytes that nobody wrote", st.Size)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d files, %d links, neither: %v", files, links, neither)
}
