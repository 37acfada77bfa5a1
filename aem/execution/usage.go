package execution

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// Ledger keeps what jobs used: *usage.Ledger.
type Ledger interface {
	// Put keeps a record in the place of an earlier one of its job, on disk; a
	// final one stays.
	Put(r *xosv1.UsageRecord) error
	// Open gives the record of a job that is not settled, or nil.
	Open(id xos.JobID) *xosv1.UsageRecord
	// Abandon ends the records of jobs that alive does not know.
	Abandon(alive func(xos.JobID) bool) error
}

// accountedFile, in a unit's directory, says that the final record of what it
// used is in the ledger: the kernel's figures may be gone.
const accountedFile = "accounted"

// begun opens the record of a unit that runs, unless it has one.
func (e *Execution) begun(r *running) {
	if e.Usage == nil || r.over() || e.Usage.Open(r.spec.Job) != nil {
		return
	}
	if err := e.Usage.Put(e.record(r)); err != nil {
		e.Log.Error("it is not written down that a job runs", "job", r.spec.Job, "error", err)
	}
}

// record says who runs what here, and nothing of what it uses.
func (e *Execution) record(r *running) *xosv1.UsageRecord {
	rec := usage.Of(r.status(), e.cfg.Node)
	if rec.Started == nil { // it ended before it began
		rec.Started = r.status().Ended
		rec.Until = rec.Started
	}
	if grant, err := loadGrant(r.dir); err == nil {
		rec.Credential = grant.Identity.Source
		if rec.Credential == "" {
			rec.Credential = grant.Identity.Serial
		}
	}
	return rec
}

// measure writes down what the running units have used so far: should the
// machine stop, that much is known.
func (e *Execution) measure(ctx context.Context) {
	if e.Usage == nil || e.Meter == nil {
		return
	}
	for _, r := range e.all() {
		if r.over() {
			continue
		}
		used, err := e.Meter.Used(ctx, r.spec.Account, r.spec.Job)
		if err == nil && !r.over() {
			rec := e.record(r)
			rec.Until = timestamppb.New(e.Now())
			usage.Count(rec, used, aem.Usage{})
			err = e.Usage.Put(rec)
		}
		if err != nil && !xos.Is(err, xos.NotFound) { // that: it has just ended
			e.Log.Warn("what a job uses is not written down", "job", r.spec.Job, "error", err)
		}
	}
}

// account writes down what a unit that has ended used, once. Until it has, the
// kernel's figures must not be dropped.
func (e *Execution) account(r *running) error {
	if e.Usage == nil {
		return nil
	}
	done := filepath.Join(r.dir, accountedFile)
	if _, err := os.Stat(done); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old := e.Usage.Open(r.spec.Job); old == nil || !old.Final {
		rec := e.record(r)
		used := usage.Unknown()
		if e.Meter != nil {
			ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
			known, err := e.Meter.EndJob(ctx, r.spec.Account, r.spec.Job)
			cancel()
			if err == nil {
				used = known
			} else if !xos.Is(err, xos.NotFound) {
				return err
			}
		}
		var seen unit.State
		if st, err := r.state(); err == nil {
			seen = st
		}
		rec.Until, rec.Final = r.status().Ended, true
		usage.Count(rec, used, seen.Usage)
		if err := e.Usage.Put(rec); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o600)
}

// drop lets go of what the kernel and this machine have of a unit whose use is
// written down, and says whether it is.
func (e *Execution) drop(r *running) bool {
	err := e.account(r)
	if err != nil && e.ctx.Err() == nil {
		e.Log.Error("what a job used is not written down", "job", r.spec.Job, "error", err)
	}
	if err != nil && !xos.Is(err, xos.Invalid) { // that will not change
		return false
	}
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	if err := e.Guard.RemoveJob(ctx, r.spec.Account, r.spec.Job); err != nil {
		e.Log.Error("a job's cgroup was not removed", "job", r.spec.Job, "error", err)
	}
	return true
}
