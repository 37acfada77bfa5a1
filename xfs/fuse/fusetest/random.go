package fusetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// randomOperations writes, cuts and reads one file at random through two
// descriptors, and compares it with a copy in memory all the time.
func randomOperations(t *testing.T, dir string) {
	const most = 9 << 20 // over several objects
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(dir, "f")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		check(t, err)
		return f
	}
	f, g := open(), open()
	defer func() { f.Close(); g.Close() }()
	var model []byte
	grow := func(n int) {
		if n > len(model) {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	var history []string
	for i := range 600 {
		h := f
		if rnd.IntN(2) == 0 {
			h = g
		}
		switch op := rnd.IntN(20); {
		case op < 9:
			off, n := rnd.IntN(most), 1+rnd.IntN(1+rnd.IntN(300000))
			data := make([]byte, n)
			for j := range data {
				data[j] = byte(rnd.Uint32())
			}
			_, err := h.WriteAt(data, int64(off))
			check(t, err)
			grow(off + n)
			copy(model[off:], data)
			history = append(history, fmt.Sprintf("%d write %d+%d", i, off, n))
		case op < 16 && len(model) > 0:
			off := rnd.IntN(len(model))
			buf := make([]byte, 1+rnd.IntN(300000))
			n, _ := h.ReadAt(buf, int64(off))
			want := model[off:min(off+len(buf), len(model))]
			if !bytes.Equal(buf[:n], want) {
				at := 0
				for at < min(n, len(want)) && buf[at] == want[at] {
					at++
				}
				t.Fatalf("seed %d: read %d+%d gave %d bytes, wrong from %d on (want %d bytes)\n%v", seed, off, len(buf), n, off+at, len(want), history[max(0, len(history)-25):])
			}
		case op == 16:
			size := rnd.IntN(most)
			check(t, h.Truncate(int64(size)))
			if size < len(model) {
				clear(model[size:])
				model = model[:size]
			}
			grow(size)
			history = append(history, fmt.Sprintf("%d truncate %d", i, size))
		case op == 17:
			check(t, h.Sync())
			history = append(history, fmt.Sprintf("%d sync", i))
		case op == 18:
			check(t, g.Close())
			g = open()
			history = append(history, fmt.Sprintf("%d reopen", i))
		default:
			info, err := os.Stat(path)
			check(t, err)
			if info.Size() != int64(len(model)) {
				t.Fatalf("seed %d: size %d, want %d\n%v", seed, info.Size(), len(model), history[max(0, len(history)-25):])
			}
		}
	}
	check(t, f.Sync())
	data, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(data, model) {
		t.Fatalf("seed %d: the file differs at the end", seed)
	}
}
