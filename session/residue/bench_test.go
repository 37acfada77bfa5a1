package residue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/test/need"
)

// BenchmarkSweep searches this machine, in haste; it reports files a second.
// A tmpfs of 100,000 files makes sure that there are some.
func BenchmarkSweep(b *testing.B) {
	need.Root(b)
	dir := b.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256m"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for i := range 100 {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 1000 {
			if err := unix.Mknod(filepath.Join(sub, fmt.Sprint(j)), unix.S_IFREG|0o644, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	files := 0
	for b.Loop() {
		r, err := residue.Search(context.Background(), residue.Config{Rate: -1}, []residue.Subject{{ID: 2_147_000_001, Name: "bench@vo"}})
		if err != nil {
			b.Fatal(err)
		}
		for _, l := range r.Looks {
			if l.Kind == residue.File {
				files += l.Seen
			}
		}
	}
	b.ReportMetric(float64(files)/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric(float64(files)/float64(b.N), "files")
}
