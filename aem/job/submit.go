package job

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"path"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/order"
	"github.com/xtreemos/xos/aem/shadow"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
)

// Submit implements JobsHandler: it returns when the job runs. One shadow
// stands for one job: asked again for it, because the answer was lost with a
// restart say, the same job is given.
func (m *Manager) Submit(ctx context.Context, req *connect.Request[xosv1.SubmitRequest]) (*connect.Response[xosv1.SubmitResponse], error) {
	s, uid, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	spec := req.Msg.Spec
	if err := order.CheckSpec(spec); err != nil {
		return nil, err
	}
	if _, err := query(spec, s.Identity.VO); err != nil {
		return nil, err
	}
	j, err := m.accept(s, uid, req.Msg)
	if err != nil {
		return nil, err
	}
	for {
		job, _, changed := j.watch()
		j.mu.Lock()
		placed, refusal := j.placed, j.refusal
		j.mu.Unlock()
		switch {
		case placed && job.Started == nil && refusal != nil:
			return nil, refusal
		case placed && job.Started == nil:
			return nil, xos.Errorf(xos.Unavailable, "job %s was not started: %s", job.Id, job.Reason)
		case placed:
			return connect.NewResponse(&xosv1.SubmitResponse{Job: job}), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if j.shadow == (shadow.ID{}) { // else it decides, by its own end
				j.wantKill("its submission was broken off")
			}
			return nil, ctx.Err()
		case <-m.ctx.Done():
			return nil, errRestart()
		}
	}
}

// accept begins to look for a place. The job is written down when there is one:
// until then nothing was promised, and whoever waits asks again.
func (m *Manager) accept(s session.Session, uid uint32, req *xosv1.SubmitRequest) (*managed, error) {
	spec := proto.CloneOf(req.Spec)
	if spec.Name == "" {
		spec.Name = path.Base(spec.Argv[0])
	}
	if len(spec.Name) > 64 {
		spec.Name = spec.Name[:64]
	}
	job := &xosv1.Job{Id: m.newID(), Account: s.Identity.Account.String(), Spec: spec, State: xosv1.JobState_JOB_STATE_NEW,
		SubmitNode: string(m.cfg.Node), Submitted: now(m)}
	j := m.managed(job, s.Identity.Account)
	j.stdin, j.tty, j.rows, j.cols = req.Stdin, req.Tty, req.Rows, req.Columns
	if req.ShadowPid != 0 {
		p, err := shadow.Open(int(req.ShadowPid), uid)
		if err != nil {
			return nil, err
		}
		j.shadow = p.ID
		p.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, errRestart()
	}
	if j.shadow != (shadow.ID{}) {
		for _, other := range m.jobs {
			if other.shadow == j.shadow && other.account == j.account && !ended(other.record()) {
				return other, nil
			}
		}
	}
	m.jobs[xos.JobID(job.Id)] = j
	m.attend(j)
	return j, nil
}

// newID names a job after its home site; 48 random bits make it unique, and
// the directory refuses what is not.
func (m *Manager) newID() string {
	var b [6]byte
	rand.Read(b[:])
	return m.cfg.Site + "-" + hex.EncodeToString(b[:])
}

// attend starts the goroutines of a job: they end with it, or with m.
func (m *Manager) attend(j *managed) {
	job := j.record() // before they change it
	m.work.Go(func() { j.live() })
	m.work.Go(func() { j.keepRecord() })
	if j.shadow != (shadow.ID{}) && !ended(job) {
		m.work.Go(func() { j.follow() })
	}
	if job.KillWanted {
		m.work.Go(func() { j.carryOutKill() })
	}
}

// follow turns what nobody can catch, but its shadow suffered, into what
// happens to the job.
func (j *managed) follow() {
	p, err := shadow.Reopen(j.shadow)
	if err != nil {
		j.wantKill("its local process ended")
		return
	}
	defer p.Close()
	ctx, cancel := j.until(ended)
	defer cancel()
	p.Watch(ctx, func(s shadow.State) error {
		switch s {
		case shadow.Stopped:
			return j.signal(ctx, sigStop)
		case shadow.Running:
			return j.signal(ctx, sigCont)
		}
		j.wantKill("its local process ended")
		return nil
	})
}

// until gives a context that ends when the job has come to that, or with the manager.
func (j *managed) until(reached func(*xosv1.Job) bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(j.m.ctx)
	j.m.work.Go(func() {
		defer cancel()
		for {
			job, _, changed := j.watch()
			if reached(job) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, cancel
}

// errRestart asks for the same question again: nothing was decided.
func errRestart() error {
	return xos.Errorf(xos.Conflict, "the session service is restarting: ask again")
}
