package usage_test

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// BenchmarkBegan has 1 and 20 accounts begin stays at once, again and again, on the
// disk that has the temporary directory: how many a second, and how long each waits.
func BenchmarkBegan(b *testing.B) {
	for _, atOnce := range []int{1, 20} {
		b.Run(fmt.Sprint(atOnce), func(b *testing.B) {
			l, err := usage.OpenLedger(b.TempDir(), 0, time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			s := usage.NewStays("node1", l, &kernel{}, nil, time.Now(), time.Now, slog.New(slog.DiscardHandler))
			waited := make([]time.Duration, 0, b.N)
			var mu sync.Mutex
			b.ResetTimer()
			for n := 0; n < b.N; n += atOnce {
				var all sync.WaitGroup
				for i := n; i < min(n+atOnce, b.N); i++ {
					all.Go(func() {
						who := vom.Identity{Serial: "77"}
						who.Account = xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: "physics"}
						begin := time.Now()
						s.Began(session.Session{ID: xos.SessionID(fmt.Sprint("s-", i)), Identity: who, Mapping: session.Mapping{UID: uint32(i)}, Opened: begin})
						took := time.Since(begin)
						mu.Lock()
						defer mu.Unlock()
						waited = append(waited, took)
					})
				}
				all.Wait()
			}
			b.StopTimer()
			slices.Sort(waited)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "stays/s")
			b.ReportMetric(float64(waited[b.N/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(waited[b.N*99/100].Microseconds())/1000, "ms-p99")
			if n := len(l.Stays()); n != b.N {
				b.Errorf("%d stays of %d are written down", n, b.N)
			}
		})
	}
}
