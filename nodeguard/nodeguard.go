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
	// Labelled gives the uids that Login was called for since the machine was
	// started, by this process or one before it, and Forget was not.
	Labelled(ctx context.Context) ([]uint32, error)
	// LoginsUsed tells what a uid has used outside of jobs since Login was first
	// called for it, of what Used has: NetIn, NetOut, Execs, Opens and Refused.
	// xos.NotFound if nothing is known.
	LoginsUsed(ctx context.Context, uid uint32) (Used, error)
	// Rest takes away what bounds the sessions of a uid that has none and no
	// process, if resting says so; the next Login bounds them anew.
	Rest(ctx context.Context, uid uint32, resting func() bool) error
	// Forget takes back what Login did for a uid, its figures too, if free says
	// that it is nobody's; else xos.Conflict. Nothing of the uid may be left, for
	// it is denied everything then. free and resting are asked while no Login of
	// the uid is under way: one that comes later does its work after that. Both
	// are idempotent; what a kill interrupts is there to be forgotten still.
	Forget(ctx context.Context, uid uint32, free func() bool) error
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
