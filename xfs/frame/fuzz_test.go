package frame

import (
	"bytes"
	"testing"
	"time"

	"github.com/xtreemos/xos/xfs"
)

// kinds gives an empty message of every kind that is decoded anywhere.
func kinds() []message {
	all := []message{
		attr{new(xfs.Attr)}, layout{new(xfs.Layout)}, opened{new(xfs.Opened)}, statfs{new(xfs.StatFS)},
		capability{new(xfs.Capability)}, new(text), new(blob), new(names), new(entries), new(failure),
		new(writeArgs), new(readArgs), new(readResult), new(truncateArgs), new(capArgs), new(spaceResult),
	}
	// writeArgs and the like hold their capability by value.
	for op := opLookup; op <= opRemovexattr; op++ {
		all = append(all, &mrcArgs{op: op})
	}
	return all
}

func sampleCapability() xfs.Capability {
	return xfs.Capability{File: xfs.FileID{Volume: "home-physics-alice", Inode: 77}, Rights: xfs.MayRead,
		Node: "node1", Account: "alice@physics", Epoch: 3, Expires: time.Unix(1<<31, 5), Signature: make([]byte, 64)}
}

func sampleAttr() xfs.Attr {
	t := time.Unix(1700000000, 123456789).UTC()
	return xfs.Attr{Inode: 9, Mode: 0o100644, Nlink: 2, Size: 1 << 40, Owner: "alice@physics", Group: "physics:higgs",
		Rdev: 1, Atime: t, Mtime: t.Add(1), Ctime: t.Add(2), Version: 12}
}

// FuzzDecode: whatever arrives, a decoder neither panics nor allocates beyond
// its input's measure, and what it accepts has exactly one encoding.
func FuzzDecode(f *testing.F) {
	for i, m := range kinds() {
		b, _ := encode(nil, m)
		f.Add(uint8(i), b)
	}
	a, c := sampleAttr(), sampleCapability()
	for i, m := range []message{0: attr{&a}, 4: capability{&c},
		8: &entries{list: []xfs.Entry{{Name: "x", Attr: a, Cookie: 4}}, done: true},
		9: &failure{code: 1, msg: "no", hint: "yes"}} {
		if m != nil {
			b, err := encode(nil, m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		all := kinds()
		m := all[int(kind)%len(all)]
		if decode(b, m) != nil {
			return
		}
		again, err := encode(nil, m)
		if err != nil {
			t.Fatalf("%T was decoded but cannot be encoded: %v", m, err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("%T has two encodings:\n%x\n%x", m, b, again)
		}
	})
}

func FuzzHeader(f *testing.F) {
	var b [HeaderSize]byte
	header{size: 30, head: 10, id: 1, code: 3, timeout: 5}.put(&b)
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHeader(bytes.NewReader(in))
		if err != nil {
			return
		}
		if h.head > MaxHead || h.bulk() < 0 || h.bulk() > MaxBulk {
			t.Fatalf("accepted %+v", h)
		}
		var out [HeaderSize]byte
		if h.put(&out); !bytes.Equal(out[:], in[:HeaderSize]) {
			t.Fatal("header changed")
		}
	})
}
