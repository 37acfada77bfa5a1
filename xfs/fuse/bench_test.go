package fuse_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// BenchmarkRootWrite writes a file from its beginning, 1 MiB a call, through a
// mount, and has it durable at its end.
func BenchmarkRootWrite(b *testing.B) {
	dir := xfstest.StartGrid(b, 0).Mount("node1", client.Config{}).Dir()
	buf := fill(1<<20, "benchmark", 1)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(buf, int64(i%512)<<20); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRootRead reads a file of 64 MiB from its beginning through a mount,
// from the storage each time.
func BenchmarkRootRead(b *testing.B) {
	dir := xfstest.StartGrid(b, 0).Mount("node1", client.Config{}).Dir()
	path := filepath.Join(dir, "f")
	const size = 64 << 20
	if err := store(path, fill(size, "benchmark", 1)); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(size)
	for b.Loop() {
		if err := dropPages(f); err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, size)); err != nil || n != size {
			b.Fatalf("%d bytes, %v", n, err)
		}
	}
}

// BenchmarkRootCreate makes empty files through a mount, by one and by eight
// at a time.
func BenchmarkRootCreate(b *testing.B) {
	for _, makers := range []int{1, 8} {
		b.Run(fmt.Sprint("makers=", makers), func(b *testing.B) {
			dir := xfstest.StartGrid(b, 0).Mount("node1", client.Config{}).Dir()
			var next atomic.Int64
			var all sync.WaitGroup
			b.ResetTimer()
			for range makers {
				all.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("f", n)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
						if err != nil {
							b.Error(err)
							return
						}
						f.Close()
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}
