package osd_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/osd"
	"github.com/xtreemos/xos/xfs/xfstest"
)

const crashDir = "XOS_OSD_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const (
	crashFiles  = 3
	crashBlocks = 24
)

// Every block is filled with the round in which it was written.
func stamped(round uint64) []byte {
	b := make([]byte, xfs.BlockSize)
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], round)
	}
	return b
}

// event tells the parent what is under way and what is promised.
type event struct {
	File, Block int
	Round       uint64
	Synced      bool // all of the file up to here
	Deleted     bool
}

// writeUntilKilled is the child: it writes and syncs without end.
func writeUntilKilled(dir string) error {
	s, err := osd.Open(dir, 0)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := uint64(time.Now().UnixNano()); ; round++ {
		e := event{File: r.IntN(crashFiles), Block: r.IntN(crashBlocks), Round: round}
		id := xfs.FileID{Volume: "crash", Inode: xfs.Inode(1 + e.File)}
		if err := out.Encode(e); err != nil {
			return err
		}
		data := stamped(round)
		if err := s.Write(id, 0, int64(e.Block)*xfs.BlockSize, data, xfstest.Sums(0, data)); err != nil {
			return err
		}
		if r.IntN(4) > 0 {
			continue
		}
		if err := s.Sync(id); err != nil {
			return err
		}
		e.Synced = true
		if err := out.Encode(e); err != nil {
			return err
		}
	}
}

// TestKilled kills a writer again and again: each block is then one that was
// written, whole, and not older than what was synced.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var synced, written [crashFiles][crashBlocks]uint64
	for life := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		events := json.NewDecoder(bufio.NewReader(out))
		for n := 0; ; n++ {
			var e event
			if err := events.Decode(&e); err != nil {
				if n < 200 && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("the writer ended by itself: %v", err)
				}
				break
			}
			if e.Synced {
				synced[e.File] = written[e.File]
			} else {
				written[e.File][e.Block] = e.Round
			}
			if n == 200+life*57 {
				cmd.Process.Kill() // what it had said before is still read
			}
		}
		cmd.Wait()
		s := openStore(t, dir, 0)
		for f := range crashFiles {
			for b := range crashBlocks {
				round := readStamp(t, s, xfs.FileID{Volume: "crash", Inode: xfs.Inode(1 + f)}, b)
				if round < synced[f][b] || round > written[f][b] {
					t.Fatalf("life %d: block %d of file %d is of round %d, synced was %d, last written %d", life, b, f, round, synced[f][b], written[f][b])
				}
				synced[f][b], written[f][b] = round, round
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func readStamp(t *testing.T, s *osd.Store, id xfs.FileID, block int) uint64 {
	t.Helper()
	buf := make([]byte, xfs.BlockSize)
	n, _, err := s.ReadInto(id, 0, int64(block)*xfs.BlockSize, buf)
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return 0
	}
	round := binary.BigEndian.Uint64(buf)
	if n != len(buf) || round != 0 && !bytes.Equal(buf, stamped(round)) {
		t.Fatalf("block %d of file %d is torn", block, id.Inode)
	}
	return round
}

// TestPowerCut copies the store's files at moments between syncs, with each
// slot that was not synced garbled: what a disk may be after a power cut.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 0)
	defer s.Close()
	id := xfs.FileID{Volume: "power", Inode: 1}
	write := func(block int, round uint64) {
		t.Helper()
		data := stamped(round)
		if err := s.Write(id, 0, int64(block)*xfs.BlockSize, data, xfstest.Sums(0, data)); err != nil {
			t.Fatal(err)
		}
	}
	for b := range 8 {
		write(b, 1)
	}
	if err := s.Sync(id); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data", "01", "power@1")
	durable, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	for round := uint64(2); round < 6; round++ {
		for b := range 6 {
			write(b, round)
		}
	}
	if err := s.Truncate(id, 7*xfs.BlockSize+1000, xfs.DefaultObjectSize); err != nil {
		t.Fatal(err)
	}
	copied := copyTree(t, dir)
	after := filepath.Join(copied, "data", "01", "power@1")
	now, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	for i := range now {
		if i >= len(durable) || now[i] != durable[i] {
			now[i] ^= 0x5a
		}
	}
	if err := os.WriteFile(after, now, 0o600); err != nil {
		t.Fatal(err)
	}
	c := openStore(t, copied, 0)
	defer c.Close()
	for b := range 7 {
		if round := readStamp(t, c, id, b); round != 1 {
			t.Errorf("block %d is of round %d", b, round)
		}
	}
	if n, _, err := c.ReadInto(id, 0, 7*xfs.BlockSize, make([]byte, xfs.BlockSize)); n != 1000 || err != nil {
		t.Errorf("the cut block has %d bytes, %v", n, err)
	}
}

func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return to
}

// TestRot: bytes that changed on the disk are found, at reading and at writing
// beside them, and are never given out; the rest of the file is.
func TestRot(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 0)
	defer s.Close()
	id := xfs.FileID{Volume: "rot", Inode: 5}
	two := append(stamped(1), stamped(2)...)
	if err := s.Write(id, 0, 0, two, xfstest.Sums(0, two)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "data", "05", "rot@5"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, 777); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, xfs.BlockSize)
	if _, _, err := s.ReadInto(id, 0, 0, buf); !errors.Is(err, xfs.ErrCorrupt) {
		t.Errorf("reading: %v", err)
	}
	if _, _, err := s.ReadInto(id, 0, 5000, buf[:10]); !errors.Is(err, xfs.ErrCorrupt) {
		t.Errorf("reading a part: %v", err)
	}
	if err := s.Write(id, 0, 9000, []byte("x"), xfstest.Sums(9000, []byte("x"))); !errors.Is(err, xfs.ErrCorrupt) {
		t.Errorf("writing a part: %v", err)
	}
	if round := readStamp(t, s, id, 1); round != 2 {
		t.Errorf("the other block is of round %d", round)
	}
	whole := stamped(3) // writing all of it mends it
	if err := s.Write(id, 0, 0, whole, []uint32{crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli))}); err != nil {
		t.Fatal(err)
	}
	if round := readStamp(t, s, id, 0); round != 3 {
		t.Errorf("the mended block is of round %d", round)
	}
}
