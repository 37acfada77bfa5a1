// Package aem is the contract of application execution management (AEM): jobs
// on the grid's machines. Its parts are
//
//   - aem/job: the manager of a job, on the machine it was submitted from;
//   - aem/execution: starts and supervises job units on this machine;
//   - aem/directory: where jobs are and who manages them, in the core;
//   - aem/unit: the files and the socket by which a job unit is found again;
//   - aem/supervise: the process that runs and keeps one job unit (xos-job);
//   - aem/order: what a machine runs for a user, by her signed order;
//   - aem/shadow: watches the local process that stands for a job;
//   - aem/usage: what jobs used, kept and added up;
//   - aem/resource: what this machine offers, as srds.Attributes.
package aem

import (
	"strings"
	"time"

	"github.com/xtreemos/xos"
)

// State of a job, after SAGA (GFD.90).
type State string

const (
	New       State = "new"
	Running   State = "running"
	Suspended State = "suspended"
	Done      State = "done"
	Canceled  State = "canceled"
	Failed    State = "failed"
)

// Ended reports whether nothing will change any more.
func (s State) Ended() bool { return s == Done || s == Canceled || s == Failed }

// MaxJobID is the longest job id, in bytes.
const MaxJobID = 64

// ValidJobID reports whether id may name a job: a lower-case letter, then
// lower-case letters, digits, '-', '_' or '.', not two dots together. So it
// is safe as the name of a file and of a cgroup.
func ValidJobID(id xos.JobID) bool {
	if len(id) == 0 || len(id) > MaxJobID || id[0] < 'a' || id[0] > 'z' || strings.Contains(string(id), "..") {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// Exit is how a job's first process ended: by a code, or by a signal.
type Exit struct {
	Code   int
	Signal int
}

// Status is how a shell shows it: the code, or 128 + signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

// Exit codes that a shell gives to a command it could not run.
const (
	ExitCannotExecute = 126
	ExitNotFound      = 127
)

// Usage is what a job has used.
type Usage struct {
	CPU    time.Duration
	Memory int64 // bytes, resident now
	Peak   int64
	// CPUUser and CPUSystem are what CPU consists of.
	CPUUser, CPUSystem time.Duration
	// Read and Written are bytes from and to disks, where Disk says that the
	// machine's controller counts them.
	Disk          bool
	Read, Written int64
}
