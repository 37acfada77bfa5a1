package xfstest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Grant gives a capability for a file.
type Grant func(ino xfs.Inode, rights xfs.Rights) xfs.Capability

// RunOSD runs the suite of xfs.OSD. open gives an empty storage and what
// grants capabilities on it.
func RunOSD(t *testing.T, open func(t *testing.T) (xfs.OSD, Grant)) {
	for name, f := range map[string]func(*testing.T, device){
		"Random":    testRandom,
		"Holes":     testHoles,
		"Bounds":    testBounds,
		"Checksums": testChecksums,
		"Truncate":  testTruncate,
		"Delete":    testDelete,
		"Rights":    testRights,
		"Writers":   testWriters,
		"Space":     testSpace,
	} {
		t.Run(name, func(t *testing.T) {
			o, grant := open(t)
			f(t, device{t, o, grant})
		})
	}
}

const all = xfs.MayRead | xfs.MayWrite | xfs.MayDelete

// Sums gives the checksums that go with data at an offset.
func Sums(off int64, data []byte) (sums []uint32) {
	for len(data) > 0 {
		n := min(len(data), int(xfs.BlockSize-off%xfs.BlockSize))
		sums = append(sums, crc32.Checksum(data[:n], crc32.MakeTable(crc32.Castagnoli)))
		data, off = data[n:], off+int64(n)
	}
	return sums
}

type device struct {
	t *testing.T
	xfs.OSD
	grant Grant
}

func (d device) write(ino xfs.Inode, object uint64, off int64, data []byte) {
	d.t.Helper()
	if err := d.Write(d.t.Context(), d.grant(ino, xfs.MayWrite), object, off, data, Sums(off, data)); err != nil {
		d.t.Fatal(err)
	}
}

func (d device) sync(ino xfs.Inode) {
	d.t.Helper()
	if err := d.Sync(d.t.Context(), d.grant(ino, xfs.MayWrite)); err != nil {
		d.t.Fatal(err)
	}
}

// read reads n bytes, checks the sums, and fills up with zeroes.
func (d device) read(ino xfs.Inode, object uint64, off int64, n int) []byte {
	d.t.Helper()
	data, sums, err := d.Read(d.t.Context(), d.grant(ino, xfs.MayRead), object, off, n)
	if err != nil {
		d.t.Fatal(err)
	}
	if want := Sums(off, data); fmt.Sprint(sums) != fmt.Sprint(want) {
		d.t.Fatalf("sums %x for data with %x", sums, want)
	}
	return append(data, make([]byte, n-len(data))...)
}

func (d device) fails(err error, kind xos.Kind, want error) {
	d.t.Helper()
	user{t: d.t}.fails(err, kind, want)
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i>>8)*31 + byte(i)
	}
	return b
}

// testRandom compares random writes, cuts and reads with a model.
func testRandom(t *testing.T, d device) {
	const object, objects = 4 * xfs.BlockSize, 3
	r := rand.New(rand.NewPCG(1, 2))
	model := make([]byte, object*objects)
	for i := range 600 {
		k := r.Uint64N(objects)
		off := r.IntN(object)
		n := 1 + r.IntN(object-off)
		if r.IntN(2) == 0 {
			n = min(n, 1+r.IntN(5000))
		}
		switch r.IntN(10) {
		case 0:
			size := r.IntN(len(model) + 1)
			if r.IntN(3) > 0 {
				size = len(model) - r.IntN(xfs.BlockSize)
			}
			if err := d.OSD.Truncate(t.Context(), d.grant(7, xfs.MayWrite), int64(size), object); err != nil {
				t.Fatal(err)
			}
			clear(model[size:])
		case 1:
			d.sync(7)
		case 2, 3, 4, 5:
			data := pattern(n, byte(i))
			d.write(7, k, int64(off), data)
			copy(model[int(k)*object+off:], data)
		default:
			if got := d.read(7, k, int64(off), n); !bytes.Equal(got, model[int(k)*object+off:][:n]) {
				t.Fatalf("step %d: %d bytes at %d of object %d are not what was written", i, n, off, k)
			}
		}
	}
}

func testHoles(t *testing.T, d device) {
	d.write(1, 0, 3*xfs.BlockSize+100, []byte("end"))
	data, _, err := d.Read(t.Context(), d.grant(1, xfs.MayRead), 0, 10, 1000)
	if err != nil || len(data) != 1000 || !bytes.Equal(data, make([]byte, 1000)) {
		t.Errorf("a hole before the end: %d bytes, %v", len(data), err)
	}
	data, _, err = d.Read(t.Context(), d.grant(1, xfs.MayRead), 0, 3*xfs.BlockSize, 1000)
	if err != nil || !bytes.Equal(data, append(make([]byte, 100), "end"...)) {
		t.Errorf("the end: %d bytes, %v", len(data), err)
	}
	for _, c := range []struct {
		ino    xfs.Inode
		object uint64
		off    int64
	}{{1, 0, 4 * xfs.BlockSize}, {1, 9, 0}, {2, 0, 0}} {
		data, sums, err := d.Read(t.Context(), d.grant(c.ino, xfs.MayRead), c.object, c.off, 10)
		if err != nil || len(data) != 0 || len(sums) != 0 {
			t.Errorf("what is not there, %v: %d bytes, %v", c, len(data), err)
		}
	}
	d.sync(2) // nothing to do is no error
}

func testBounds(t *testing.T, d device) {
	for _, off := range []int64{-1, 1 << 31, 1<<63 - 1} {
		err := d.Write(t.Context(), d.grant(1, xfs.MayWrite), 0, off, []byte("abc"), Sums(0, []byte("abc")))
		d.fails(err, xos.Invalid, nil)
		_, _, err = d.Read(t.Context(), d.grant(1, xfs.MayRead), 0, off, 3)
		d.fails(err, xos.Invalid, nil)
	}
	for _, size := range []int64{0, -1, 1000, 1 << 40} {
		d.fails(d.OSD.Truncate(t.Context(), d.grant(1, xfs.MayWrite), 0, size), xos.Invalid, nil)
	}
	_, _, err := d.Read(t.Context(), d.grant(1, xfs.MayRead), 0, 0, 1<<30)
	d.fails(err, xos.TooLarge, nil)
}

func testChecksums(t *testing.T, d device) {
	data := pattern(2*xfs.BlockSize, 3)
	bad := Sums(0, data)
	bad[1]++
	d.fails(d.Write(t.Context(), d.grant(1, xfs.MayWrite), 0, 0, data, bad), xos.Unavailable, nil)
	d.fails(d.Write(t.Context(), d.grant(1, xfs.MayWrite), 0, 0, data, bad[:1]), xos.Invalid, nil)
	if got := d.read(1, 0, 0, len(data)); !bytes.Equal(got, make([]byte, len(data))) {
		t.Error("a refused write left something")
	}
}

func testTruncate(t *testing.T, d device) {
	const object = 2 * xfs.BlockSize
	data := pattern(object, 1)
	for k := range uint64(3) {
		d.write(1, k, 0, data)
	}
	d.sync(1)
	size := int64(object + xfs.BlockSize + 77)
	if err := d.OSD.Truncate(t.Context(), d.grant(1, xfs.MayWrite), size, object); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Clone(data[:xfs.BlockSize+77]), make([]byte, xfs.BlockSize-77)...)
	if !bytes.Equal(d.read(1, 0, 0, object), data) || !bytes.Equal(d.read(1, 1, 0, object), want) ||
		!bytes.Equal(d.read(1, 2, 0, object), make([]byte, object)) {
		t.Error("after a cut something else is there than before it")
	}
	d.write(1, 1, xfs.BlockSize+100, []byte("x")) // the gap is zeroes, not what was cut off
	want[xfs.BlockSize+100] = 'x'
	if !bytes.Equal(d.read(1, 1, 0, object), want) {
		t.Error("what was cut off came back")
	}
}

func testDelete(t *testing.T, d device) {
	d.write(1, 0, 0, pattern(1000, 1))
	d.write(2, 0, 0, pattern(1000, 2))
	d.sync(1)
	for range 2 {
		if err := d.OSD.Delete(t.Context(), d.grant(1, xfs.MayDelete)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(d.read(2, 0, 0, 1000), pattern(1000, 2)) {
		t.Error("not this file was deleted")
	}
	// Who has it open must not take zeroes for its data, nor believe it kept.
	_, _, err := d.Read(t.Context(), d.grant(1, xfs.MayRead), 0, 0, 1000)
	d.fails(err, xos.NotFound, xfs.ErrStale)
	d.fails(d.Sync(t.Context(), d.grant(1, xfs.MayWrite)), xos.NotFound, xfs.ErrStale)
	// A late writer does not raise it from the dead.
	err = d.Write(t.Context(), d.grant(1, xfs.MayWrite), 0, 0, []byte("late"), Sums(0, []byte("late")))
	d.fails(err, xos.NotFound, xfs.ErrStale)
}

func testRights(t *testing.T, d device) {
	ctx := t.Context()
	ops := map[xfs.Rights]map[string]func(xfs.Capability) error{
		xfs.MayRead: {"read": func(c xfs.Capability) error { _, _, err := d.Read(ctx, c, 0, 0, 1); return err }},
		xfs.MayWrite: {
			"write":    func(c xfs.Capability) error { return d.Write(ctx, c, 0, 0, []byte("a"), Sums(0, []byte("a"))) },
			"truncate": func(c xfs.Capability) error { return d.OSD.Truncate(ctx, c, 1, xfs.DefaultObjectSize) },
			"sync":     func(c xfs.Capability) error { return d.Sync(ctx, c) },
		},
		xfs.MayDelete: {"delete": func(c xfs.Capability) error { return d.OSD.Delete(ctx, c) }},
	}
	for right, named := range ops {
		for name, op := range named {
			if err := op(d.grant(3, all&^right)); !xos.Is(err, xos.Permission) {
				t.Errorf("%s without the right to: %v", name, err)
			}
			for what, forge := range map[string]func(*xfs.Capability){
				"another file":   func(c *xfs.Capability) { c.File.Inode++ },
				"another volume": func(c *xfs.Capability) { c.File.Volume += "x" },
				"a later end":    func(c *xfs.Capability) { c.Expires = c.Expires.Add(1) },
				"another node":   func(c *xfs.Capability) { c.Node += "x" },
				"no signature":   func(c *xfs.Capability) { c.Signature = nil },
				"a bit":          func(c *xfs.Capability) { c.Signature = bytes.Clone(c.Signature); c.Signature[5] ^= 1 },
			} {
				c := d.grant(3, all)
				forge(&c)
				if err := op(c); !xos.Is(err, xos.Permission) {
					t.Errorf("%s, capability forged in %s: %v", name, what, err)
				}
			}
		}
	}
}

// testWriters has many write to many files and to one, with syncs and reads.
func testWriters(t *testing.T, d device) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				data := pattern(xfs.BlockSize+n, byte(i))
				own := xfs.Inode(100 + i)
				errs := []error{
					d.Write(t.Context(), d.grant(own, xfs.MayWrite), 0, 0, data, Sums(0, data)),
					d.Write(t.Context(), d.grant(99, xfs.MayWrite), uint64(i), int64(n), data, Sums(int64(n), data)),
					d.Sync(t.Context(), d.grant(own, xfs.MayWrite)),
				}
				got, _, err := d.Read(t.Context(), d.grant(own, xfs.MayRead), 0, 0, len(data))
				if err = errors.Join(append(errs, err)...); err != nil || !bytes.Equal(got, data) {
					t.Errorf("writer %d, round %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testSpace(t *testing.T, d device) {
	total, free, err := d.Space(t.Context())
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("space: %d free of %d, %v", free, total, err)
	}
}
