package execution

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
)

// heed ends, stops and resumes the jobs of accounts whose access ended or came
// back.
func (e *Execution) heed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.ctx.Done():
			return
		case s, ok := <-e.Sessions.Revoked():
			if !ok {
				return
			}
			for _, r := range e.all() {
				if r.spec.Account != s.Account {
					continue
				}
				switch s.Do {
				case session.End:
					e.work.Go(func() { e.kill(e.ctx, r, "the access of "+s.Account.String()+" ended") })
				case session.Freeze:
					e.work.Go(func() { e.hold(e.ctx, r) })
				case session.Thaw:
					e.work.Go(func() { e.resume(e.ctx, r) })
				}
			}
		}
	}
}

// synchronize compares the units with the directory: wishes to kill that came
// while this machine could not be reached, units that nobody wants any more,
// and records of units that are gone, since the machine was restarted.
func (e *Execution) synchronize(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Sync)
	defer cancel()
	// The units first: one that starts after this has a record already.
	units := e.all()
	resp, err := e.Directory.ListJobs(ctx, connect.NewRequest(&xosv1.ListJobsRequest{Node: string(e.cfg.Node)}))
	if err != nil {
		e.Log.Debug("the job directory cannot be asked", "error", err)
		return
	}
	wanted := map[xos.JobID]*xosv1.Job{}
	for _, job := range resp.Msg.Jobs {
		if job.ExecutionNode == string(e.cfg.Node) {
			wanted[xos.JobID(job.Id)] = job
		}
	}
	for _, r := range units {
		job := wanted[r.spec.Job]
		delete(wanted, r.spec.Job)
		switch {
		case r.over():
		case job == nil && e.unwanted(ctx, r):
			e.kill(ctx, r, "its record gives it to another machine, or to none")
		case job.GetKillWanted():
			e.kill(ctx, r, "killed")
		}
	}
	for id, job := range wanted {
		if job.Started != nil && e.find(id) == nil && !e.starting(id) {
			e.lost(ctx, job)
		}
	}
}

func (e *Execution) starting(id xos.JobID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pending[id]
}

// unwanted asks for one record: only a clear answer ends a unit.
func (e *Execution) unwanted(ctx context.Context, r *running) bool {
	resp, err := e.Directory.GetJob(ctx, connect.NewRequest(&xosv1.GetJobRequest{Job: string(r.spec.Job)}))
	if xos.Is(err, xos.NotFound) {
		return true
	}
	return err == nil && (resp.Msg.ExecutionNode != string(e.cfg.Node) || unit.StateOf(resp.Msg.State).Ended())
}

// lost says of a job that ran here that it is gone.
func (e *Execution) lost(ctx context.Context, job *xosv1.Job) {
	job = proto.CloneOf(job)
	job.State, job.ExitSignal, job.Ended = xosv1.JobState_JOB_STATE_FAILED, 9, timestamppb.New(e.Now().Truncate(time.Millisecond))
	job.Reason = string(e.cfg.Node) + " was restarted while the job ran"
	if _, err := e.Directory.PutJob(ctx, connect.NewRequest(&xosv1.PutJobRequest{Job: job})); err != nil && !xos.Is(err, xos.Conflict) {
		e.Log.Warn("a lost job was not recorded", "job", job.Id, "error", err)
		return
	}
	e.Log.Warn("a job was lost", "job", job.Id)
}
