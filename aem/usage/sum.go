package usage

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// Sum is what one member's jobs and sessions used together.
type Sum struct {
	VO   xos.VOName `json:"vo"`
	User xos.UserID `json:"user"`
	// Jobs that ran, Running of which have not ended. Wall is for how long.
	Jobs    int           `json:"jobs"`
	Running int           `json:"running"`
	Wall    time.Duration `json:"wall_ns"`
	// Stays on a machine, Here of which are not over, with Logins in all. Stayed is
	// for how long.
	Stays  int           `json:"stays"`
	Here   int           `json:"here"`
	Logins int64         `json:"logins"`
	Stayed time.Duration `json:"stayed_ns"`
	// Incomplete is of how many jobs and stays not all is known.
	Incomplete    int           `json:"incomplete"`
	CPUUser       time.Duration `json:"cpu_user_ns"`
	CPUSystem     time.Duration `json:"cpu_system_ns"`
	MemoryPeak    int64         `json:"memory_peak_bytes"` // the highest of one job's or stay's
	ReadBytes     int64         `json:"read_bytes"`
	WrittenBytes  int64         `json:"written_bytes"`
	ReceivedBytes int64         `json:"received_bytes"`
	SentBytes     int64         `json:"sent_bytes"`
	Executions    int64         `json:"executions"`
	Opens         int64         `json:"opens"`
	Refusals      int64         `json:"refusals"`
}

// Wall is for how long a job has run, or a stay lasted.
func Wall(r *xosv1.UsageRecord) time.Duration {
	return max(r.Until.AsTime().Sub(r.Started.AsTime()), 0)
}

// Sums gathers records, in any order. The zero value is empty.
type Sums struct {
	latest map[[2]string]*xosv1.UsageRecord
}

// Add counts a record; of several of one job or stay on one machine only the latest.
func (s *Sums) Add(r *xosv1.UsageRecord) {
	if s.latest == nil {
		s.latest = map[[2]string]*xosv1.UsageRecord{}
	}
	key := [2]string{ID(r), r.Node}
	if old := s.latest[key]; old == nil || Before(old, r) {
		s.latest[key] = r
	}
}

// Records gives those that count, by VO and time.
func (s *Sums) Records() []*xosv1.UsageRecord {
	return slices.SortedFunc(maps.Values(s.latest), func(a, b *xosv1.UsageRecord) int {
		one, _ := xos.ParseAccount(a.Account)
		two, _ := xos.ParseAccount(b.Account)
		return cmp.Or(cmp.Compare(one.VO, two.VO), a.Until.AsTime().Compare(b.Until.AsTime()), cmp.Compare(ID(a), ID(b)), cmp.Compare(a.Node, b.Node))
	})
}

// ByMember adds up, ordered by VO and user.
func (s *Sums) ByMember() []Sum {
	sums := map[xos.Account]*Sum{}
	for _, r := range s.latest {
		a, err := xos.ParseAccount(r.Account)
		if err != nil {
			continue // Check lets none of these in
		}
		m := sums[a]
		if m == nil {
			m = &Sum{VO: a.VO, User: a.User}
			sums[a] = m
		}
		m.add(r)
	}
	list := make([]Sum, 0, len(sums))
	for _, m := range sums {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Sum) int { return cmp.Or(cmp.Compare(a.VO, b.VO), cmp.Compare(a.User, b.User)) })
	return list
}

func (m *Sum) add(r *xosv1.UsageRecord) {
	if r.Stay != "" {
		m.Stays++
		m.Logins += r.Logins
		m.Stayed += Wall(r)
		if !r.Final {
			m.Here++
		}
	} else {
		m.Jobs++
		m.Wall += Wall(r)
		if !r.Final {
			m.Running++
		}
	}
	if r.Incomplete {
		m.Incomplete++
	}
	m.CPUUser += time.Duration(r.CpuUserMicros) * time.Microsecond
	m.CPUSystem += time.Duration(r.CpuSystemMicros) * time.Microsecond
	m.MemoryPeak = max(m.MemoryPeak, r.MemoryPeakBytes)
	m.ReadBytes += r.ReadBytes
	m.WrittenBytes += r.WrittenBytes
	m.ReceivedBytes += r.ReceivedBytes
	m.SentBytes += r.SentBytes
	m.Executions += r.Executions
	m.Opens += r.Opens
	m.Refusals += r.Refusals
}
