package fuse_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// TestRootRot: a byte that changed on the storage's disk is an error for whom
// reads it and a line in the log that says where; all else is readable.
func TestRootRot(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	m := g.Mount("node1", client.Config{})
	const block, blocks, bad = xfs.BlockSize, 6, 3
	want := make([]byte, block*blocks)
	rand.NewChaCha8([32]byte{1}).Read(want)
	path := filepath.Join(m.Dir(), "f")
	must(t, os.WriteFile(path, want, 0o600))
	must(t, m.Stop())
	info, inode := onDisk(t, g, want[bad*block:bad*block+100])
	m.Start()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	got := make([]byte, 4096)
	for b := range int64(blocks) {
		for _, off := range []int64{b * block, b*block + block/2, b*block + block - 4096} {
			must(t, dropPages(f))
			n, err := f.ReadAt(got, off)
			if b == bad && !errors.Is(err, syscall.EIO) {
				t.Errorf("the changed block, at %d: %d bytes, %v", off, n, err)
			}
			if b != bad && (err != nil || !bytes.Equal(got, want[off:off+4096])) {
				t.Errorf("another block, at %d: %v", off, err)
			}
		}
	}
	line := fmt.Sprintf("inode %d, object 0, block %d", inode, bad)
	if !strings.Contains(g.OSD.Log(), line) {
		t.Errorf("no line of the storage's log says %q in %s", line, info)
	}
}

// onDisk changes one byte of what is stored, where it is as given.
func onDisk(t *testing.T, g *xfstest.Grid, content []byte) (file string, inode uint64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(g.OSDDir(), "data", "*", "*"))
	must(t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		if n := bytes.Count(data, content); n > 1 {
			t.Errorf("a block that was written once is stored %d times", n)
		}
		if at := bytes.LastIndex(data, content); at >= 0 {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte{data[at+50] ^ 1}, int64(at+50))
			must(t, err)
			_, err = fmt.Sscanf(file[strings.LastIndexByte(file, '@')+1:], "%x", &inode)
			must(t, err)
			return file, inode
		}
	}
	t.Fatal("nothing stored has this content")
	return "", 0
}

// TestRootFull: a full storage is told to who writes, at the latest when it is
// closed; what was there stays, and removing makes room.
func TestRootFull(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 16<<20)
	dir := g.Mount("node1", client.Config{}).Dir()
	for round := range 2 {
		whole := map[string]int{}
		var full error
		for i := 0; full == nil; i++ {
			if i > 32 {
				t.Fatal("the storage never gets full")
			}
			name := filepath.Join(dir, fmt.Sprint("f", i))
			if full = store(name, fill(1<<20, name, round)); full == nil {
				whole[name] = round
			}
		}
		if !errors.Is(full, syscall.ENOSPC) {
			t.Errorf("a full storage: %v", full)
		}
		if len(whole) < 10 {
			t.Errorf("full after %d of 16 MiB", len(whole))
		}
		for name, round := range whole {
			wantFile(t, name, fill(1<<20, name, round))
		}
		list, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range list {
			must(t, os.Remove(filepath.Join(dir, e.Name())))
		}
		eventually(t, "removing makes room", func() bool {
			return store(filepath.Join(dir, "again"), fill(8<<20, "again", round)) == nil
		})
		wantFile(t, filepath.Join(dir, "again"), fill(8<<20, "again", round))
		must(t, os.Remove(filepath.Join(dir, "again")))
		eventually(t, "it was the last", func() bool {
			return store(filepath.Join(dir, "probe"), fill(12<<20, "probe", round)) == nil
		})
		must(t, os.Remove(filepath.Join(dir, "probe")))
		eventually(t, "all is free", func() bool {
			left, err := filepath.Glob(filepath.Join(g.OSDDir(), "data", "*", "*"))
			return err == nil && len(left) == 0
		})
	}
	// Beyond what any file has is no matter of space.
	if err := os.Truncate(dirFile(t, dir), 1<<62); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("a size of 2^62: %v", err)
	}
}

func dirFile(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "small")
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	return path
}

// store writes a file and has it durable.
func store(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
