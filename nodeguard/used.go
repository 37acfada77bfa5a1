package nodeguard

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// Used is what a job, or a stay, has used of this machine, as the kernel counted
// it. All of it only grows.
type Used struct {
	CPUUser, CPUSystem time.Duration
	// MemoryPeak is the most memory at once, in bytes, caches of files included;
	// 0 where no controller counts it.
	MemoryPeak int64
	// Read and Written are bytes from and to disks.
	Read, Written uint64
	// NetIn and NetOut are bytes of IP packets, headers included, of the sockets
	// that its processes made.
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

// Stay is what an account's sessions have used, jobs not counted.
type Stay struct {
	Used
	// Cgroup is where their processes are, 0 without one. The processor time, peak
	// of memory and, where a controller counts them, bytes of disks are that
	// cgroup's, which ends with the sessions; the rest goes on.
	Cgroup uint64
}

// Attendant tells what sessions use.
type Attendant interface {
	// Stay tells what the sessions of an account have used since Arrive.
	// xos.NotFound where nothing is known, as after the machine was restarted.
	Stay(ctx context.Context, a xos.Account, uid uint32) (Stay, error)
	// Arrive begins anew to count, but for what a cgroup counts. Before it
	// Guard.Login must have been called.
	Arrive(a xos.Account, uid uint32) error
}
