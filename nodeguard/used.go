package nodeguard

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// Used is what a job has used of this machine, as the kernel counted it. All of
// it only grows.
type Used struct {
	CPUUser, CPUSystem time.Duration
	// MemoryPeak is the most memory at once, in bytes, caches of files included;
	// 0 where no controller counts it.
	MemoryPeak int64
	// Read and Written are bytes from and to disks.
	Read, Written uint64
	// NetIn and NetOut are bytes of IP packets, headers included, of the sockets
	// that the job's processes made.
	NetIn, NetOut uint64
	// Execs counts programs executed, Opens files opened, Refused what was
	// refused for the sake of other VOs.
	Execs, Opens, Refused uint64
	// Uncounted names figures that this machine does not count: "cpu", "memory",
	// "disk", "net", "execs", "opens", "refused". They are 0.
	Uncounted []string
}

// Meter tells what jobs use.
type Meter interface {
	// Used tells what a job has used so far. It is exact for a job that has ended
	// in all its processes, and is there until Guard.RemoveJob, whoever removed
	// the job's cgroup. xos.NotFound for a job of which nothing is known.
	Used(ctx context.Context, a xos.Account, job xos.JobID) (Used, error)
	// EndJob kills what is left in a job's cgroup, and tells what the job has
	// used in all. xos.NotFound as with Used: then it is killed all the same.
	EndJob(ctx context.Context, a xos.Account, job xos.JobID) (Used, error)
}
