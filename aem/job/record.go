package job

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// linger is how long an ended and recorded job is remembered here, for tools
// that are about to ask.
const linger = 30 * time.Second

// put writes the job's record, merged with what the directory learned from
// others: a wish to kill, or an end.
func (j *managed) put(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		job := j.record()
		var err error
		var resp *connect.Response[xosv1.PutJobResponse]
		req := connect.NewRequest(&xosv1.PutJobRequest{Job: job})
		if job.Epoch == 0 {
			// A record begins with the user's own word.
			first := proto.CloneOf(job)
			first.State, first.Started, first.Ended, first.Reason, first.KillWanted = xosv1.JobState_JOB_STATE_NEW, nil, nil, "", false
			d, done, derr := j.m.peers.directoryFor(ctx, j.account)
			if derr != nil {
				return derr
			}
			resp, err = d.PutJob(ctx, connect.NewRequest(&xosv1.PutJobRequest{Job: first}))
			done()
		} else {
			resp, err = j.m.peers.directory().PutJob(ctx, req)
		}
		switch {
		case err == nil:
			j.mu.Lock()
			next := proto.CloneOf(j.job)
			next.Epoch = resp.Msg.Epoch
			j.job = next // the epoch alone is not worth a write: it is asked for anew
			j.mu.Unlock()
			if job.Epoch != 0 || job.State == xosv1.JobState_JOB_STATE_NEW {
				return nil
			}
		case xos.Is(err, xos.Conflict), xos.Is(err, xos.Exists):
			if err := j.merge(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// merge reads the record and takes over what others wrote.
func (j *managed) merge(ctx context.Context) error {
	resp, err := j.m.peers.directory().GetJob(ctx, connect.NewRequest(&xosv1.GetJobRequest{Job: j.record().Id}))
	if err != nil {
		return err
	}
	theirs := resp.Msg
	j.mu.Lock()
	defer j.mu.Unlock()
	next := proto.CloneOf(j.job)
	if ended(theirs) {
		// The first end that is recorded counts.
		next = proto.CloneOf(theirs)
	}
	kill := theirs.KillWanted && !next.KillWanted && !ended(next)
	next.Epoch, next.KillWanted = theirs.Epoch, next.KillWanted || theirs.KillWanted
	j.job = next
	j.placed = j.placed || ended(next)
	if err := j.save(); err != nil {
		return err
	}
	j.notify()
	if kill {
		j.m.work.Go(j.carryOutKill)
	}
	return nil
}

// keepRecord writes the record at each durable change, until the end is
// recorded; then it forgets the job.
func (j *managed) keepRecord() {
	ctx := j.m.ctx
	wait := 250 * time.Millisecond
	for {
		job, _, _ := j.watch()
		if j.begun() {
			err := j.put(ctx)
			if ctx.Err() != nil {
				return
			}
			retry := err != nil
			if xos.Is(err, xos.NotFound) && job.Epoch != 0 || xos.Is(err, xos.Permission) && ended(job) {
				retry = false // long forgotten, or its user is a member no more: nobody asks
			}
			if retry {
				j.m.Log.Debug("a job's record was not written", "job", job.Id, "error", err)
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
				wait = min(2*wait, 5*time.Second)
				continue
			}
			wait = 250 * time.Millisecond
		}
		if ended(j.record()) {
			select {
			case <-time.After(linger):
				j.m.forget(j)
			case <-ctx.Done():
			}
			return
		}
		select {
		case <-j.kick:
		case <-ctx.Done():
			return
		}
	}
}

// begun reports whether there is something to record beyond what start does by
// itself: the job runs, has ended, or was recorded before.
func (j *managed) begun() bool {
	job := j.record()
	return job.Epoch != 0 || job.Started != nil
}
