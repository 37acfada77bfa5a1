// Package directory is the job directory: where the grid's jobs are, who manages
// them, and what they used. It runs in the core, on infra/kv.
//
// Records (all keys below "aem/"):
//
//	aem/job/VO/ID        the Job, protobuf
//	aem/id/ID            its VO
//	aem/user/VO/USER/ID  empty; a user's jobs
//	aem/node/NODE/ID     empty; jobs that NODE submitted or runs
//	aem/ended/TIME/ID    empty; when to forget it, by the time it ended
//	aem/count/VO/USER    how many records a user has, decimal
//
//	aem/usage/VO/TIME/ID/NODE            the UsageRecord, protobuf, by its until
//	aem/usage-user/VO/USER/TIME/ID/NODE  empty; a user's
//	aem/usage-job/ID/NODE                VO/TIME/ID/NODE: where it is, of a job or stay
//	aem/usage-stays/NODE                 a day, and how many stays NODE began to tell of
//
// A record's epoch counts its writes; a writer gives the one it read.
package directory

import (
	"cmp"
	"context"
	"log/slog"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom/credential"
)

// Config has usable zero values.
type Config struct {
	// Keep is how long an ended job is remembered; 24 h.
	Keep time.Duration
	// PerUser bounds the records of one account; 10,000.
	PerUser int
	// KeepUsage is how long it is remembered what jobs used; 400 days.
	KeepUsage time.Duration
}

// maxRecord bounds one record, in bytes.
const maxRecord = 256 << 10

// maxList bounds an answer; the newest are given.
const maxList = 5000

// Directory implements xosv1connect.JobDirectoryHandler.
type Directory struct {
	cfg    Config
	store  kv.Store
	verify *credential.Verifier
	now    func() time.Time
	log    *slog.Logger
}

// New makes the directory; it does not close the store.
func New(cfg Config, store kv.Store, verify *credential.Verifier, now func() time.Time, log *slog.Logger) *Directory {
	if cfg.Keep == 0 {
		cfg.Keep = 24 * time.Hour
	}
	if cfg.KeepUsage == 0 {
		cfg.KeepUsage = 400 * 24 * time.Hour
	}
	if cfg.PerUser == 0 {
		cfg.PerUser = 10_000
	}
	return &Directory{cfg, store, verify, now, log}
}

// Run forgets old jobs until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for minutes := 0; ; minutes++ {
		if n, err := d.Forget(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("forgetting old jobs", "error", err)
		} else if n > 0 {
			d.log.Info("forgot ended jobs", "number", n)
		}
		if minutes%60 == 0 { // it looks at each VO
			d.forgetUsage(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// PutJob implements JobDirectoryHandler.
func (d *Directory) PutJob(ctx context.Context, req *connect.Request[xosv1.PutJobRequest]) (*connect.Response[xosv1.PutJobResponse], error) {
	c, err := d.caller(ctx)
	if err != nil {
		return nil, err
	}
	job := req.Msg.Job
	if err := checkJob(job); err != nil {
		return nil, err
	}
	job = proto.CloneOf(job)
	var epoch uint64
	err = d.store.Update(ctx, func(txn kv.Txn) error {
		old, err := load(txn, xos.JobID(job.Id))
		switch {
		case xos.Is(err, xos.NotFound):
			if job.Epoch != 0 {
				return xos.Errorf(xos.NotFound, "there is no job %s", job.Id)
			}
			if err := c.mayCreate(job); err != nil {
				return err
			}
			job.Credential = cmp.Or(c.user.Source, c.user.Serial)
			epoch = 1
			return d.create(txn, job)
		case err != nil:
			return err
		}
		next, err := c.replace(old, job)
		if err != nil {
			return err
		}
		epoch = old.Epoch
		if proto.Equal(next, old) {
			return nil // said twice
		}
		epoch++
		next.Epoch = epoch
		return d.save(txn, old, next)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.PutJobResponse{Epoch: epoch}), nil
}

// checkJob bounds what is stored.
func checkJob(job *xosv1.Job) error {
	if !aem.ValidJobID(xos.JobID(job.GetId())) {
		return xos.Errorf(xos.Invalid, "%.80q is no job id", job.GetId())
	}
	if proto.Size(job) > maxRecord {
		return xos.Errorf(xos.TooLarge, "the record of job %s exceeds %d bytes", job.Id, maxRecord)
	}
	if job.ExecutionNode != "" && !xos.ValidName(job.ExecutionNode) {
		return xos.Errorf(xos.Invalid, "%.80q is no node", job.ExecutionNode)
	}
	if _, known := xosv1.JobState_name[int32(job.State)]; !known || job.State == xosv1.JobState_JOB_STATE_UNSPECIFIED {
		return xos.Errorf(xos.Invalid, "job %s has no state", job.Id)
	}
	return nil
}

func ended(job *xosv1.Job) bool {
	switch job.State {
	case xosv1.JobState_JOB_STATE_DONE, xosv1.JobState_JOB_STATE_CANCELED, xosv1.JobState_JOB_STATE_FAILED:
		return true
	}
	return false
}

// GetJob implements JobDirectoryHandler.
func (d *Directory) GetJob(ctx context.Context, req *connect.Request[xosv1.GetJobRequest]) (*connect.Response[xosv1.Job], error) {
	c, err := d.caller(ctx)
	if err != nil {
		return nil, err
	}
	var job *xosv1.Job
	err = d.store.View(ctx, func(txn kv.Txn) error {
		job, err = c.find(txn, req.Msg.Job)
		return err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(job), nil
}

// RequestKill implements JobDirectoryHandler.
func (d *Directory) RequestKill(ctx context.Context, req *connect.Request[xosv1.RequestKillRequest]) (*connect.Response[xosv1.PutJobResponse], error) {
	c, err := d.caller(ctx)
	if err != nil {
		return nil, err
	}
	if c.user == nil {
		return nil, xos.Errorf(xos.Permission, "only a job's user may kill it")
	}
	var epoch uint64
	err = d.store.Update(ctx, func(txn kv.Txn) error {
		job, err := c.find(txn, req.Msg.Job)
		if err != nil {
			return err
		}
		epoch = job.Epoch
		if ended(job) || job.KillWanted {
			return nil
		}
		next := proto.CloneOf(job)
		next.KillWanted = true
		epoch++
		next.Epoch = epoch
		return d.save(txn, job, next)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.PutJobResponse{Epoch: epoch}), nil
}

// ListJobs implements JobDirectoryHandler.
func (d *Directory) ListJobs(ctx context.Context, req *connect.Request[xosv1.ListJobsRequest]) (*connect.Response[xosv1.ListResponse], error) {
	c, err := d.caller(ctx)
	if err != nil {
		return nil, err
	}
	prefix, err := c.listed(req.Msg.Node)
	if err != nil {
		return nil, err
	}
	out := &xosv1.ListResponse{}
	err = d.store.View(ctx, func(txn kv.Txn) error {
		out.Jobs = nil
		var ids []string
		if err := txn.Range(prefix, kv.PrefixEnd(prefix), func(key, _ []byte) (bool, error) {
			ids = append(ids, string(key[len(prefix):]))
			return true, nil
		}); err != nil {
			return err
		}
		for _, id := range ids {
			job, err := load(txn, xos.JobID(id))
			if err != nil {
				return err
			}
			if req.Msg.All || !ended(job) {
				out.Jobs = append(out.Jobs, job)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	newestLast(out.Jobs)
	if n := len(out.Jobs); n > maxList {
		out.Jobs = out.Jobs[n-maxList:]
	}
	return connect.NewResponse(out), nil
}

func formatTime(t time.Time) string {
	const width = 16 // digits, so that keys sort by time
	s := strconv.FormatInt(max(t.Unix(), 0), 10)
	for len(s) < width {
		s = "0" + s
	}
	return s
}
