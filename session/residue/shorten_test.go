package residue

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/xtreemos/xos/session"
)

// TestShorten: grid users' records go with the length that they gave the file, local
// users' stay; a file that has others' beyond is left alone.
func TestShorten(t *testing.T) {
	const first, last = int64(session.FirstID), int64(session.LastID)
	for _, c := range []struct {
		name string
		ids  []int64
		most int64 // how long it may be
	}{
		{"none", nil, 0},
		{"local", []int64{0, 1000, 65534}, 65535 * lastlogSize},
		{"grid alone", []int64{first}, 0},
		{"both", []int64{1000, 65534, first + 5, last}, 65535*lastlogSize + 1<<16},
		{"beyond", []int64{1000, first + 5, last + 1}, (last + 2) * lastlogSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lastlog")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			record := bytes.Repeat([]byte{1}, lastlogSize)
			for _, id := range c.ids {
				if _, err := f.WriteAt(record, id*lastlogSize); err != nil {
					t.Fatal(err)
				}
			}
			if err := shorten(path, first, last); err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil || info.Size() > c.most {
				t.Errorf("%d bytes, want %d at most (%v)", info.Size(), c.most, err)
			}
			for _, id := range c.ids {
				got := make([]byte, lastlogSize)
				_, err := f.ReadAt(got, id*lastlogSize)
				if (id < first || id > last) && (err != nil || !bytes.Equal(got, record)) {
					t.Errorf("the record of %d: %v, %v", id, got, err)
				}
			}
		})
	}
	if err := shorten(filepath.Join(t.TempDir(), "lastlog"), first, last); err != nil {
		t.Errorf("where there is none: %v", err)
	}
}
