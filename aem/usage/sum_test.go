package usage_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

var begin = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func record(job, account, node string) *xosv1.UsageRecord {
	return &xosv1.UsageRecord{Job: job, Account: account, Node: node, Executable: "/bin/sim", Submitted: timestamppb.New(begin),
		Started: timestamppb.New(begin), Until: timestamppb.New(begin.Add(time.Minute)), Final: true}
}

// TestSums compares sums of random jobs, each told several times in some order,
// with what a plain model says of their last records.
func TestSums(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		model := map[xos.Account]*usage.Sum{}
		var told []*xosv1.UsageRecord
		for i := range r.IntN(30) {
			a := xos.Account{User: xos.UserID([]string{"alice", "bob"}[r.IntN(2)]), VO: xos.VOName([]string{"physics", "chemistry"}[r.IntN(2)])}
			rec := record(fmt.Sprintf("job-%d", i/2), a.String(), []string{"node1", "node2"}[i%2])
			times := 1 + r.IntN(4)
			for n := range times {
				rec = proto.CloneOf(rec)
				rec.Until = timestamppb.New(begin.Add(time.Duration(n+1) * time.Second))
				rec.Final, rec.Incomplete = n == times-1 && r.IntN(3) > 0, r.IntN(2) > 0
				for _, figure := range []*int64{&rec.CpuUserMicros, &rec.CpuSystemMicros, &rec.MemoryPeakBytes, &rec.ReadBytes, &rec.WrittenBytes,
					&rec.ReceivedBytes, &rec.SentBytes, &rec.Executions, &rec.Opens, &rec.Refusals} {
					*figure += r.Int64N(1 << 40)
				}
				for range 1 + r.IntN(2) {
					told = append(told, rec)
				}
			}
			m := model[a]
			if m == nil {
				m = &usage.Sum{VO: a.VO, User: a.User}
				model[a] = m
			}
			m.Jobs++
			if !rec.Final {
				m.Running++
			}
			if rec.Incomplete {
				m.Incomplete++
			}
			m.Wall += time.Duration(times) * time.Second
			m.CPUUser += time.Duration(rec.CpuUserMicros) * time.Microsecond
			m.CPUSystem += time.Duration(rec.CpuSystemMicros) * time.Microsecond
			m.MemoryPeak = max(m.MemoryPeak, rec.MemoryPeakBytes)
			m.ReadBytes += rec.ReadBytes
			m.WrittenBytes += rec.WrittenBytes
			m.ReceivedBytes += rec.ReceivedBytes
			m.SentBytes += rec.SentBytes
			m.Executions += rec.Executions
			m.Opens += rec.Opens
			m.Refusals += rec.Refusals
		}
		want := []usage.Sum{}
		for _, vo := range []xos.VOName{"chemistry", "physics"} {
			for _, user := range []xos.UserID{"alice", "bob"} {
				if m := model[xos.Account{User: user, VO: vo}]; m != nil {
					want = append(want, *m)
				}
			}
		}
		var sums usage.Sums
		r.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
		for _, rec := range told {
			sums.Add(rec)
		}
		if diff := cmp.Diff(want, sums.ByMember()); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}
