package osd_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/osd"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// fill writes blocks until the storage is full and gives how many went in.
func fill(t *testing.T, s *osd.Store, id xfs.FileID) int {
	t.Helper()
	for n := 0; n < 10000; n++ {
		data := stamped(uint64(n + 1))
		err := s.Write(id, 0, int64(n)*xfs.BlockSize, data, xfstest.Sums(0, data))
		if xos.Is(err, xos.TooLarge) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the storage never got full")
	return 0
}

// checkFull fills a storage and looks whether what is there stays whole,
// refused writes change nothing, and space comes back.
func checkFull(t *testing.T, s *osd.Store) {
	id, other := xfs.FileID{Volume: "full", Inode: 1}, xfs.FileID{Volume: "full", Inode: 2}
	for range 3 {
		n := fill(t, s, id)
		if n < 16 {
			t.Fatalf("full after %d blocks", n)
		}
		two := append(stamped(1001), stamped(1002)...)
		if err := s.Write(id, 0, 0, two, xfstest.Sums(0, two)); !xos.Is(err, xos.TooLarge) {
			t.Fatalf("overwriting two blocks: %v", err)
		}
		if err := s.Sync(id); err != nil {
			t.Fatal(err)
		}
		for b := range n {
			if round := readStamp(t, s, id, b); round != uint64(b+1) {
				t.Fatalf("block %d is of round %d", b, round)
			}
		}
		if _, free, err := s.Space(); err != nil || free >= 2*xfs.BlockSize {
			t.Errorf("%d bytes are free in a full storage, %v", free, err)
		}
		// A cut gives space back, for other files too.
		if err := s.Truncate(id, 8*xfs.BlockSize, xfs.DefaultObjectSize); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(id); err != nil {
			t.Fatal(err)
		}
		data := stamped(9)
		if err := s.Write(other, 0, 0, data, xfstest.Sums(0, data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(id); err != nil {
		t.Fatal(err)
	}
	if n := fill(t, s, other); n < 16 {
		t.Errorf("after a deletion there is room for %d blocks", n)
	}
}

func TestCapacity(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 40*xfs.BlockSize)
	checkFull(t, s)
	_, free, err := s.Space()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, 40*xfs.BlockSize)
	defer s.Close()
	if _, again, err := s.Space(); err != nil || again != free {
		t.Errorf("%d bytes are free after a restart, were %d, %v", again, free, err)
	}
}

// TestRootDiskFull fills a real file system.
func TestRootDiskFull(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("xos-osd-test", dir, "tmpfs", 0, "size=64m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := openStore(t, dir, 0)
	defer s.Close()
	checkFull(t, s)
}
