package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(writerVariable) != "" {
		if err := writeOn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	xfstest.Main(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until what another machine did is seen here.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// fill gives n bytes that tell who wrote them and when.
func fill(n int, who string, round int) []byte {
	unit := fmt.Sprintf("%s wrote round %06d; ", who, round)
	return bytes.Repeat([]byte(unit), n/len(unit)+1)[:n]
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("%s: %d bytes, want %d; differs at %d: %.40q, want %.40q", path, len(got), len(want), at, got[at:], want[at:])
	}
}

// TestRootTwoMounts: what one machine closed is what the other finds, in both
// directions, at once for data and within a second or so for names.
func TestRootTwoMounts(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	a, b := g.Mount("node1", client.Config{}).Dir(), g.Mount("node2", client.Config{}).Dir()
	for _, way := range []struct{ name, here, there string }{{"there", a, b}, {"back", b, a}} {
		t.Run("data "+way.name, func(t *testing.T) { handOver(t, way.here, way.there) })
		t.Run("names "+way.name, func(t *testing.T) { namesBetween(t, way.here, way.there) })
		t.Run("attributes "+way.name, func(t *testing.T) { attributesBetween(t, way.here, way.there) })
		t.Run("removed while open "+way.name, func(t *testing.T) { removedThere(t, way.here, way.there) })
	}
}

// handOver has two machines write one file in turns, whole, in part, longer
// and shorter; who opens it finds what the other closed.
func handOver(t *testing.T, here, there string) {
	const name = "handed over"
	dirs := []string{here, there}
	model := fill(3<<20, "nobody", 0)
	must(t, os.WriteFile(filepath.Join(here, name), model, 0o600))
	for round := range 24 {
		me, other := dirs[round%2], dirs[(round+1)%2]
		wantFile(t, filepath.Join(me, name), model)
		f, err := os.OpenFile(filepath.Join(me, name), os.O_RDWR, 0)
		must(t, err)
		data := fill(70_000+round*1000, filepath.Base(me), round)
		off := (round * 333_333) % (2 << 20)
		_, err = f.WriteAt(data, int64(off))
		must(t, err)
		copy(model[off:], data)
		switch round % 6 {
		case 2:
			must(t, f.Truncate(2<<20))
			model = model[:2<<20]
		case 4:
			must(t, f.Truncate(3<<20))
			model = append(model, make([]byte, 1<<20)...)
		case 5:
			must(t, f.Sync())
		}
		must(t, f.Close())
		info, err := os.Stat(filepath.Join(other, name))
		must(t, err)
		_ = info // may be a second old; the next open is not
	}
	wantFile(t, filepath.Join(here, name), model)
	wantFile(t, filepath.Join(there, name), model)
	must(t, os.Remove(filepath.Join(here, name)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func namesBetween(t *testing.T, here, there string) {
	d := func(root string, parts ...string) string {
		return filepath.Join(append([]string{root, "names from " + filepath.Base(here)}, parts...)...)
	}
	must(t, os.Mkdir(d(here), 0o700))
	must(t, os.WriteFile(d(here, "f"), []byte("f"), 0o600))
	wantFile(t, d(there, "f"), []byte("f"))
	must(t, os.Rename(d(here, "f"), d(here, "g")))
	wantFile(t, d(there, "g"), []byte("f"))
	eventually(t, "the old name is gone", func() bool { return !exists(d(there, "f")) })

	// Over a name that the other machine knows: what it opens is old or new.
	must(t, os.WriteFile(d(here, "h"), []byte("new"), 0o600))
	must(t, os.Rename(d(here, "h"), d(here, "g")))
	eventually(t, "the new file has the name", func() bool {
		data, err := os.ReadFile(d(there, "g"))
		if err != nil || string(data) != "new" && string(data) != "f" {
			t.Fatalf("read %q, %v", data, err)
		}
		return string(data) == "new"
	})
	must(t, os.MkdirAll(d(here, "x", "y"), 0o700))
	must(t, os.WriteFile(d(here, "x", "y", "z"), []byte("z"), 0o600))
	wantFile(t, d(there, "x", "y", "z"), []byte("z"))
	must(t, os.Rename(d(here, "x"), d(here, "w")))
	wantFile(t, d(there, "w", "y", "z"), []byte("z"))
	must(t, os.Symlink("w/y/z", d(here, "link")))
	wantFile(t, d(there, "link"), []byte("z"))
	must(t, os.Link(d(here, "g"), d(here, "g2")))
	wantFile(t, d(there, "g2"), []byte("new"))
	list, err := os.ReadDir(d(there))
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != "[g g2 link w]" {
		t.Errorf("the other machine lists %v", names)
	}
	if err := os.Mkdir(d(there, "w"), 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name taken there: %v", err)
	}
	if _, err := os.OpenFile(d(there, "g"), os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an exclusive file that is there: %v", err)
	}
	// A name that was looked for in vain.
	if exists(d(there, "late")) {
		t.Error("a file nobody made")
	}
	must(t, os.WriteFile(d(here, "late"), []byte("late"), 0o600))
	eventually(t, "the name that was missing", func() bool { return exists(d(there, "late")) })
	wantFile(t, d(there, "late"), []byte("late"))
	must(t, os.RemoveAll(d(there)))
	eventually(t, "all is gone", func() bool { return !exists(d(here)) })
}

func attributesBetween(t *testing.T, here, there string) {
	f, g := filepath.Join(here, "attributes"), filepath.Join(there, "attributes")
	must(t, os.WriteFile(f, []byte("x"), 0o600))
	stat := func() *syscall.Stat_t {
		var st syscall.Stat_t
		must(t, syscall.Stat(g, &st))
		return &st
	}
	stat()
	must(t, os.Chmod(f, 0o640))
	when := time.Unix(1234567890, 987654321)
	must(t, os.Chtimes(f, when, when))
	eventually(t, "mode and time", func() bool {
		st := stat()
		return st.Mode&0o777 == 0o640 && st.Mtim.Nano() == when.UnixNano()
	})
	h, err := os.OpenFile(f, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = h.Write(make([]byte, 99_999))
	must(t, err)
	must(t, h.Close())
	eventually(t, "size", func() bool { return stat().Size == 100_000 })
	must(t, syscall.Setxattr(f, "user.a", []byte("b"), 0))
	buf := make([]byte, 10)
	if n, err := syscall.Getxattr(g, "user.a", buf); err != nil || string(buf[:n]) != "b" {
		t.Errorf("extended attribute: %q, %v", buf[:max(n, 0)], err)
	}
	must(t, os.Remove(f))
}

// removedThere: a file that another machine removed and this one has open
// gives its data or an error, and never zeroes in its place.
func removedThere(t *testing.T, here, there string) {
	path := filepath.Join(here, "removed")
	want := fill(300_000, "here", 1)
	must(t, os.WriteFile(path, want, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(filepath.Join(there, "removed")))
	must(t, os.WriteFile(filepath.Join(there, "removed"), []byte("another"), 0o600))
	eventually(t, "the removed file's data is gone", func() bool {
		must(t, dropPages(f))
		got := make([]byte, len(want))
		n, err := f.ReadAt(got, 0)
		if n > 0 && !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("read something else: %.40q", got[:n])
		}
		return err != nil && !errors.Is(err, io.EOF)
	})
	if _, err = f.WriteAt([]byte("late"), 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		t.Error("writing to a removed file is said to be durable")
	}
	eventually(t, "the new file", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && string(data) == "another"
	})
	must(t, os.Remove(path))
}
