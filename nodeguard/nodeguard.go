// Package nodeguard is the contract of VO isolation on one machine: cgroups,
// namespaces and BPF programs that keep the processes of different VOs apart.
package nodeguard

import (
	"context"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

// Level is how strongly the kernel of this machine keeps VOs apart.
type Level string

const (
	// LevelNone: nothing is enforced beyond local uids.
	LevelNone Level = "none"
	// LevelC: namespaces, own uids, hidden /proc and cgroup BPF for the
	// network.
	LevelC Level = "C"
	// LevelA: BPF LSM programs too. Never claimed unless they fired.
	LevelA Level = "A"
)

// Feature is one probed ability of this machine.
type Feature struct {
	Name string `json:"name"`
	Have bool   `json:"have"`
	// Why says what is missing and how to get it, where Have is false.
	Why string `json:"why,omitempty"`
}

// Guard enforces.
type Guard interface {
	// Level gives the present level and what it was concluded from.
	Level() (Level, []Feature)
	// Login puts the account's login processes (everything of uid) under its
	// VO's rules. Idempotent.
	Login(ctx context.Context, a xos.Account, uid uint32) error
	// JobCgroup makes the cgroup of a job below its VO's, under the VO's rules,
	// and gives its path relative to the cgroup root, "/xos/vo-physics/job-x".
	JobCgroup(ctx context.Context, a xos.Account, job xos.JobID) (path string, err error)
	// RemoveJob kills what is left in the job's cgroup and removes it.
	RemoveJob(ctx context.Context, a xos.Account, job xos.JobID) error
	// SessionNamespace gives an open descriptor of the mount namespace in
	// which a VO's logins live (their own view of /proc). The caller closes it.
	SessionNamespace(ctx context.Context, vo xos.VOName) (fd int, err error)
	// KillUser ends every process of a grid user on this machine, in containers
	// of hers too.
	KillUser(ctx context.Context, ids session.IDs) error
	// Freeze stops every process of a grid user on this machine, in containers of
	// hers too, that is not in a job's cgroup, or lets those go on that it
	// stopped; how says by what means, for the log. Both are idempotent, and hold
	// when xos-node dies.
	Freeze(ctx context.Context, ids session.IDs, on bool) (how string, err error)
	Close() error
}
