package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// The signals that a shadow cannot catch.
const (
	sigStop = int(unix.SIGSTOP)
	sigCont = int(unix.SIGCONT)
	sigKill = int(unix.SIGKILL)
)

// grace is how long a machine may be silent before its users are told.
const grace = time.Second

// live takes the job from its submission to its end.
func (j *managed) live() {
	ctx := j.m.ctx
	j.mu.Lock()
	placed := j.placed
	j.mu.Unlock()
	if !placed && !j.place(ctx) {
		return
	}
	var silent time.Time // since when
	for ctx.Err() == nil && !ended(j.record()) {
		heard, err := j.listen(ctx)
		if ctx.Err() != nil || ended(j.record()) {
			return
		}
		if xos.Is(err, xos.NotFound) {
			j.notThere(ctx)
			continue
		}
		if heard || silent.IsZero() {
			silent = j.m.Now()
		}
		quiet := j.m.Now().Sub(silent)
		if quiet > j.m.cfg.Lost {
			j.giveUp(ctx)
			return
		}
		if quiet > grace {
			j.setTrouble(fmt.Sprintf("%s does not answer; job %s is given up if that lasts %v", j.record().ExecutionNode, j.record().Id, j.m.cfg.Lost))
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// listen follows the unit until the connection breaks; heard says whether the
// machine spoke at all.
func (j *managed) listen(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	job := j.record()
	s := j.m.peers.execution(job.ExecutionNode, job.ExecutionAddress).AttachUnit(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	// A machine that neither answers nor refuses is no better than none.
	first := time.AfterFunc(silence, cancel)
	defer first.Stop()
	if err := s.Send(&xosv1.ToJob{Job: job.Id, Watch: true}); err != nil && !errors.Is(err, context.Canceled) {
		if _, rerr := s.Receive(); rerr != nil {
			err = rerr
		}
		return false, err
	}
	for {
		msg, err := s.Receive()
		if err != nil {
			return heard, err
		}
		first.Stop()
		if heard = true; msg.Job != nil {
			j.setTrouble("")
			if err := j.learn(msg.Job); err != nil {
				return heard, err
			}
		}
		if msg.Ended {
			return heard, nil
		}
	}
}

// learn takes over how the unit stands.
func (j *managed) learn(told *xosv1.Job) error {
	old := j.record()
	return j.update(told.State != old.State, func(job *xosv1.Job) {
		if ended(told) && told.Ended == nil {
			told.Ended = now(j.m)
		}
		job.State = unit.End(told.State, told.ExitSignal, job.KillWanted)
		job.ExitCode, job.ExitSignal, job.Reason = told.ExitCode, told.ExitSignal, told.Reason
		job.Ended, job.CpuMicros, job.MemoryBytes = told.Ended, told.CpuMicros, told.MemoryBytes
		if told.Started != nil {
			job.Started = told.Started
		}
	})
}

// notThere: the machine answers that it knows nothing of the job.
func (j *managed) notThere(ctx context.Context) {
	if j.recordedEnd(ctx) {
		return
	}
	job := j.record()
	j.fail(xosv1.JobState_JOB_STATE_FAILED, job.ExecutionNode+" lost the job, by a restart perhaps")
}

// giveUp: the machine has been silent for too long. Should the unit still run
// there, the record will end it.
func (j *managed) giveUp(ctx context.Context) {
	if j.recordedEnd(ctx) {
		return
	}
	job := j.record()
	j.fail(xosv1.JobState_JOB_STATE_FAILED, fmt.Sprintf("%s, where it ran, did not answer for %v", job.ExecutionNode, j.m.cfg.Lost))
}

// recordedEnd takes over an end that the unit's machine recorded by itself.
func (j *managed) recordedEnd(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := j.merge(ctx); err != nil {
		j.m.Log.Debug("a job's record was not read", "job", j.record().Id, "error", err)
	}
	return ended(j.record())
}

// signal delivers to the unit.
func (j *managed) signal(ctx context.Context, sig int) error {
	job := j.record()
	switch {
	case ended(job):
		return nil
	case job.Started == nil:
		return xos.Errorf(xos.Unavailable, "job %s does not run yet", job.Id)
	}
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	_, err := j.m.peers.execution(job.ExecutionNode, job.ExecutionAddress).SignalUnit(ctx,
		connect.NewRequest(&xosv1.SignalUnitRequest{Job: job.Id, Signal: int32(sig), Account: job.Account}))
	return err
}

// wantKill writes the wish to kill down and begins to carry it out. It is not
// forgotten before the job has ended.
func (j *managed) wantKill(why string) {
	job := j.record()
	if ended(job) || job.KillWanted {
		return
	}
	if err := j.update(true, func(job *xosv1.Job) { job.KillWanted = true }); err != nil {
		j.m.Log.Error("a wish to kill is not written down", "job", job.Id, "error", err)
	}
	j.m.Log.Info("killing a job", "job", job.Id, "why", why)
	j.m.work.Go(j.carryOutKill)
}

// carryOutKill kills until the job has ended.
func (j *managed) carryOutKill() {
	ctx, cancel := j.until(ended)
	defer cancel()
	for {
		if err := j.signal(ctx, sigKill); err != nil && ctx.Err() == nil {
			j.m.Log.Debug("a job was not killed yet", "job", j.record().Id, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(300 * time.Millisecond):
		}
	}
}
