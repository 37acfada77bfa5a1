package residue

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeACL(t *testing.T) {
	good := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0x39, 0x30, 0, 0, 8, 0, 0, 0, 0x3a, 0x30, 0, 0}
	got, err := decodeACL(good)
	want := []mention{{12345, "ACL entry of a user"}, {12346, "ACL entry of a group"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mention{})); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, bad := range [][]byte{{2}, {3, 0, 0, 0}, good[:len(good)-1], append(good, 0)} {
		if _, err := decodeACL(bad); err == nil {
			t.Errorf("%v was read", bad)
		}
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 2, 0, 7, 0, 1, 0, 0, 0})
	f.Add(append([]byte{0, 0, 0, 3}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeACL(data)
		if err == nil && len(m) > len(data)/8 {
			t.Error("more entries than bytes")
		}
		for _, e := range m { // each id stands in the bytes
			if !bytes.Contains(data, binary.LittleEndian.AppendUint32(nil, e.id)) {
				t.Errorf("%d is not in it", e.id)
			}
		}
		decodeCapability(data)
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add("1 2 3:4 / / rw - tmpfs\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, ok := parseMounts(text)
		if ok && text != "" && len(all) == 0 {
			t.Error("nothing was read and nobody told")
		}
	})
}

func TestMentions(t *testing.T) {
	s := &search{ids: map[uint32]bool{1879048192: true}, names: map[string]uint32{"alice@physics": 1879048192}}
	for text, want := range map[string]int{
		"uid=1879048192": 1, "user-1879048192.slice": 1, "18790481921": 0, "01879048192": 1, "alice@physics:1:2": 1, "malice@physics": 0,
		"alice@physics2": 0, "alice@physics.": 1, "": 0, `"1879048192"`: 1, "#1879048192 ALL": 1, "99999999999999999999 1879048192": 1,
	} {
		n := 0
		s.mentions(text, func(uint32, string) { n++ })
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
	for line, want := range map[string]mountPoint{
		"36 35 98:0 /a /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw": {36, "98:0", "/a", "/mnt 2", "rw,noatime,rw", "ext3", "/dev/root"},
	} {
		got, ok := parseMounts(line)
		if !ok || len(got) != 1 || got[0] != want {
			t.Errorf("%q: %+v", line, got)
		}
	}
}
