package nssxos_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// BenchmarkRootSnapshot looks up the last of some people by the C library in a
// program of its own: a local one in /etc/passwd; a grid user in the order
// that machines are set up with, where /etc/passwd is read in vain before; and
// her in her VO's snapshot alone. The sources take turns, and the best of their
// passes counts: what else the machine does only adds.
func BenchmarkRootSnapshot(b *testing.B) {
	asSetUp, alone := room(b), wiretest.NewRoom(b, "xos")
	alone.Build(b, "build.sh", "libnss_xos.so.2")
	for _, r := range []*wiretest.Room{asSetUp, alone} {
		r.Compile(b, "testdata/host.c", "host", "-pthread")
	}
	for _, people := range []int{10, 1000} {
		grid := wire.Snapshot{VO: "physics", Generation: 1, GID: wiretest.PhysicsGID,
			Groups: []wire.SnapshotGroup{{Name: "physics", GID: wiretest.PhysicsGID}}}
		var local []string
		for i := range people {
			id := uint32(wiretest.AliceUID + i)
			name := fmt.Sprintf("user%d@physics", i)
			grid.Users = append(grid.Users, wire.SnapshotUser{
				Passwd: wire.Passwd{Name: name, UID: id, GID: id, Dir: "/home/xos/physics/" + name, Shell: "/bin/sh"},
				Groups: []uint32{wiretest.PhysicsGID},
			})
			local = append(local, fmt.Sprintf("local%d:x:%d:100::/home/local%d:/bin/sh", i, 2000+i, i))
		}
		for _, r := range []*wiretest.Room{asSetUp, alone} {
			r.Local(b, local...)
			if err := wire.WriteSnapshot(r.Snapshots(), grid); err != nil {
				b.Fatal(err)
			}
		}
		last := strconv.Itoa(people - 1)
		sources := []struct {
			name string
			room *wiretest.Room
			whom string
			best int
		}{
			{"files", asSetUp, "local" + last, 0},
			{"files+snapshot", asSetUp, "user" + last + "@physics", 0},
			{"snapshot", alone, "user" + last + "@physics", 0},
		}
		b.Run(fmt.Sprintf("people=%d", people), func(b *testing.B) {
			for b.Loop() {
				for i := range sources {
					s := &sources[i]
					ns, err := strconv.Atoi(output(b, s.room.Command("/run/lib/host", "bench", s.whom, "2000")))
					if err != nil {
						b.Fatal(err)
					}
					if s.best == 0 || ns < s.best {
						s.best = ns
					}
				}
			}
			b.ReportMetric(0, "ns/op") // which starts programs too
			for _, s := range sources {
				b.ReportMetric(float64(s.best), s.name+"-ns/lookup")
			}
		})
	}
}
