package xfstest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// connection is one client's own connection to a service.
func connection(b *testing.B, s *xfstest.Services, address string, service vom.Service) *frame.Client {
	cfg := s.Authority.Verifier().ClientTLS(credtest.Show(s.Authority.Delegated("alice@physics", "node1")), service)
	c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	})
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkCreate makes files through loopback TLS, each durable when it is
// answered.
func BenchmarkCreate(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := xfstest.Start(b, 0)
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for k := range clients {
				m := frame.NewMRC(connection(b, s, s.Remote("node1").MRC, vom.ServiceCore), xfstest.Volume)
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						req := xfs.RequestID{Client: uint64(k + 1), Number: uint64(i)}
						if _, err := m.Create(b.Context(), req, xfs.RootInode, fmt.Sprintf("file %d", i), 0o600, true); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// BenchmarkLookup asks for names, as a tree walk does.
func BenchmarkLookup(b *testing.B) {
	s := xfstest.Start(b, 0)
	m := frame.NewMRC(connection(b, s, s.Remote("node1").MRC, vom.ServiceCore), xfstest.Volume)
	if _, err := m.Create(b.Context(), xfs.RequestID{Client: 1, Number: 1}, xfs.RootInode, "f", 0o600, true); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := m.Lookup(b.Context(), xfs.RootInode, "f"); err != nil {
			b.Fatal(err)
		}
	}
}

const chunk = 1 << 20

// data opens a new file and gives what reads and writes it.
func data(b *testing.B) (o xfs.OSD, c xfs.Capability) {
	s := xfstest.Start(b, 0)
	m := frame.NewMRC(connection(b, s, s.Remote("node1").MRC, vom.ServiceCore), xfstest.Volume)
	opened, err := m.Create(b.Context(), xfs.RequestID{Client: 1, Number: 1}, xfs.RootInode, "f", 0o600, true)
	if err != nil {
		b.Fatal(err)
	}
	address := opened.Layout.Replicas[0].Stripes[0].Address
	return frame.NewOSD(connection(b, s, address, vom.ServiceStorage)), opened.Capability
}

// inFlight runs f for 0 to n-1, four at a time, as the client does.
func inFlight(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// place gives the object and the offset of the i-th MiB of a file that begins
// anew after 256.
func place(i int) (object uint64, off int64) {
	i %= 256
	return uint64(i) / 4, int64(i%4) * chunk
}

// BenchmarkSequentialWrite writes a file in requests of 1 MiB through loopback
// TLS and then syncs it.
func BenchmarkSequentialWrite(b *testing.B) {
	o, c := data(b)
	buf := make([]byte, chunk)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	sums := xfstest.Sums(0, buf)
	b.SetBytes(chunk)
	b.ResetTimer()
	inFlight(b.N, func(i int) {
		object, off := place(i)
		if err := o.Write(b.Context(), c, object, off, buf, sums); err != nil {
			b.Error(err)
		}
	})
	if err := o.Sync(b.Context(), c); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSequentialRead reads a file of 256 MiB again and again, verified by
// the storage.
func BenchmarkSequentialRead(b *testing.B) {
	o, c := data(b)
	buf := make([]byte, chunk)
	sums := xfstest.Sums(0, buf)
	for i := range 256 {
		object, off := place(i)
		if err := o.Write(b.Context(), c, object, off, buf, sums); err != nil {
			b.Fatal(err)
		}
	}
	bufs := sync.Pool{New: func() any { return make([]byte, chunk) }}
	b.SetBytes(chunk)
	b.ResetTimer()
	inFlight(b.N, func(i int) {
		mem := bufs.Get().([]byte)
		defer bufs.Put(mem)
		object, off := place(i)
		if n, _, err := o.(frame.ReaderInto).ReadInto(b.Context(), c, object, off, mem); err != nil || n != chunk {
			b.Errorf("%d bytes, %v", n, err)
		}
	})
}
