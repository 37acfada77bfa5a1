package execution

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// linger is how long an ended unit whose output was all read is remembered.
const linger = time.Minute

// watch follows a unit until it has ended, and sees to what then is to do.
func (e *Execution) watch(r *running) {
	e.begun(r)
	for e.ctx.Err() == nil {
		if e.follow(r) || e.settled(r) {
			e.finish(r)
			return
		}
		select {
		case <-e.ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// dial connects to the unit's supervisor and says hello.
func (r *running) dial(ctx context.Context, hello *xosv1.ToJob) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(r.dir, unit.SocketFile))
	if err != nil {
		return nil, err
	}
	hello.Job = string(r.spec.Job)
	if err := unit.WriteFrame(c, hello); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// follow keeps the status current while the supervisor speaks, and reports
// whether the unit has ended.
func (e *Execution) follow(r *running) bool {
	c, err := r.dial(e.ctx, &xosv1.ToJob{Watch: true})
	if err != nil {
		return false
	}
	defer c.Close()
	stop := context.AfterFunc(e.ctx, func() { c.Close() })
	defer stop()
	for in := bufio.NewReader(c); ; {
		var m xosv1.FromJob
		if err := unit.ReadFrame(in, &m); err != nil {
			return false
		}
		if m.Job != nil {
			r.mu.Lock()
			r.job = e.complete(m.Job)
			r.mu.Unlock()
		}
		if m.Ended {
			return true
		}
	}
}

// settled looks into the files: has the unit ended, or its supervisor died?
func (e *Execution) settled(r *running) bool {
	st, err := r.state()
	if err == nil && !st.State.Ended() && st.Alive() {
		return false
	}
	if err == nil && !st.State.Ended() {
		st, err = r.state() // it may have ended well just now
	}
	if err != nil {
		e.Log.Error("a unit's state cannot be read", "job", r.spec.Job, "error", err)
	}
	if err != nil || !st.State.Ended() {
		st.State, st.Exit, st.Ended = aem.Failed, aem.Exit{Signal: 9}, e.Now()
		st.Reason = "its supervisor on " + string(e.cfg.Node) + " was killed"
		if err := unit.Write(filepath.Join(r.dir, unit.StateFile), st); err != nil {
			e.Log.Error("a unit's end cannot be written", "job", r.spec.Job, "error", err)
		}
	}
	r.mu.Lock()
	r.job = e.complete(unit.Job(r.spec, st))
	r.mu.Unlock()
	return true
}

// finish removes what the unit had on this machine and reports its end.
func (e *Execution) finish(r *running) {
	r.mu.Lock()
	if state := unit.End(r.job.State, r.job.ExitSignal, r.killed); state != r.job.State {
		r.job = proto.CloneOf(r.job)
		r.job.State = state
	}
	if r.why != "" && r.job.State == xosv1.JobState_JOB_STATE_CANCELED {
		r.job.Reason = r.why
	}
	job := r.job
	r.mu.Unlock()
	e.Log.Info("job ended", slog.Any("job", r.spec.Job), slog.Int("code", int(job.ExitCode)), slog.Int("signal", int(job.ExitSignal)), slog.String("reason", job.Reason))
	dropped := e.drop(r)
	if r.release != nil {
		r.release()
	}
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := e.report(e.ctx, job)
		if err == nil {
			break
		}
		if !xos.Is(err, xos.Unavailable) && !xos.Is(err, xos.Conflict) {
			e.Log.Error("a job's end was not recorded", "job", r.spec.Job, "error", err)
			break
		}
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
	for !dropped {
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(10 * time.Second):
			dropped = e.drop(r)
		}
	}
	r.mu.Lock()
	r.forget = e.Now().Add(linger)
	r.mu.Unlock()
}

// report puts a unit's end into the job's record, unless it says an end
// already.
func (e *Execution) report(ctx context.Context, job *xosv1.Job) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := e.Directory.GetJob(ctx, connect.NewRequest(&xosv1.GetJobRequest{Job: job.Id}))
	if xos.Is(err, xos.NotFound) {
		return nil // long forgotten
	}
	if err != nil {
		return err
	}
	rec := resp.Msg
	if unit.StateOf(rec.State).Ended() || rec.ExecutionNode != string(e.cfg.Node) {
		return nil
	}
	rec = proto.CloneOf(rec)
	rec.State = unit.End(job.State, job.ExitSignal, rec.KillWanted)
	rec.ExitCode, rec.ExitSignal, rec.Reason = job.ExitCode, job.ExitSignal, job.Reason
	rec.Started, rec.Ended, rec.CpuMicros, rec.MemoryBytes = job.Started, job.Ended, job.CpuMicros, 0
	_, err = e.Directory.PutJob(ctx, connect.NewRequest(&xosv1.PutJobRequest{Job: rec}))
	return err
}

// clean forgets units whose end is recorded and whose output was read, or is
// too old.
func (e *Execution) clean() {
	now := e.Now()
	for _, r := range e.all() {
		r.mu.Lock()
		forget, ended := r.forget, r.job.Ended.AsTime()
		r.mu.Unlock()
		if forget.IsZero() || now.Before(forget) || !r.read() && now.Before(ended.Add(e.cfg.Keep)) {
			continue
		}
		if err := os.RemoveAll(r.dir); err != nil {
			e.Log.Error("a unit's files were not removed", "job", r.spec.Job, "error", err)
			continue
		}
		e.mu.Lock()
		delete(e.units, r.spec.Job)
		e.mu.Unlock()
	}
}

// read reports whether everything that an ended unit wrote was acknowledged.
func (r *running) read() bool {
	for _, name := range []string{unit.StdoutFile, unit.StderrFile} {
		s, err := unit.OpenSpool(filepath.Join(r.dir, name))
		if err != nil {
			continue // there is nothing to be read
		}
		start, end := s.Bounds()
		s.Close()
		if start < end {
			return false
		}
	}
	return true
}
