package job

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// lookup finds a job of the account: managed here, or in the directory.
func (m *Manager) lookup(ctx context.Context, a xos.Account, id string) (*managed, *xosv1.Job, error) {
	if j := m.own(id, a); j != nil {
		return j, j.record(), nil
	}
	d, done, err := m.peers.directoryFor(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := d.GetJob(ctx, connect.NewRequest(&xosv1.GetJobRequest{Job: id}))
	if err != nil {
		return nil, nil, err
	}
	return nil, resp.Msg, nil
}

// Get implements JobsHandler.
func (m *Manager) Get(ctx context.Context, req *connect.Request[xosv1.GetRequest]) (*connect.Response[xosv1.Job], error) {
	s, _, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	_, job, err := m.lookup(ctx, s.Identity.Account, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(job), nil
}

// List implements JobsHandler: the account's jobs, wherever they were
// submitted. While the core is away they are those submitted here.
func (m *Manager) List(ctx context.Context, req *connect.Request[xosv1.ListRequest]) (*connect.Response[xosv1.ListResponse], error) {
	s, _, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	a := s.Identity.Account
	here := map[string]*xosv1.Job{}
	m.mu.Lock()
	for _, j := range m.jobs {
		if job := j.record(); j.account == a && (req.Msg.All || !ended(job)) {
			here[job.Id] = job
		}
	}
	m.mu.Unlock()
	out := &xosv1.ListResponse{}
	all, err := m.recorded(ctx, a, req.Msg.All)
	if err != nil && !xos.Is(err, xos.Unavailable) {
		return nil, err
	}
	for _, job := range all {
		if j := m.own(job.Id, a); j != nil {
			continue // known better here
		}
		out.Jobs = append(out.Jobs, job)
	}
	for _, job := range here {
		out.Jobs = append(out.Jobs, job)
	}
	slices.SortFunc(out.Jobs, func(a, b *xosv1.Job) int { return a.Submitted.AsTime().Compare(b.Submitted.AsTime()) })
	return connect.NewResponse(out), nil
}

func (m *Manager) recorded(ctx context.Context, a xos.Account, all bool) ([]*xosv1.Job, error) {
	d, done, err := m.peers.directoryFor(ctx, a)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := d.ListJobs(ctx, connect.NewRequest(&xosv1.ListJobsRequest{All: all}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Jobs, nil
}

// Wait implements JobsHandler.
func (m *Manager) Wait(ctx context.Context, req *connect.Request[xosv1.GetRequest]) (*connect.Response[xosv1.Job], error) {
	s, _, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	missing := 0
	for {
		j, job, err := m.lookup(ctx, s.Identity.Account, req.Msg.Job)
		switch {
		case xos.Is(err, xos.Unavailable) && ctx.Err() == nil && missing < 60:
			missing++ // the core is away; the job may be running all the same
		case err != nil:
			return nil, err
		case ended(job):
			return connect.NewResponse(job), nil
		}
		var changed <-chan struct{}
		again := time.NewTimer(500 * time.Millisecond)
		if j != nil {
			_, _, changed = j.watch()
		}
		select {
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err()
		case <-m.ctx.Done():
			again.Stop()
			return nil, errRestart()
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// Signal implements JobsHandler. A kill is written down first: it happens even
// if the job's machine cannot be reached now.
func (m *Manager) Signal(ctx context.Context, req *connect.Request[xosv1.SignalRequest]) (*connect.Response[xosv1.SignalResponse], error) {
	s, _, err := m.caller(ctx)
	if err != nil {
		return nil, err
	}
	sig := int(req.Msg.Signal)
	if sig < -64 || sig > 64 {
		return nil, xos.Errorf(xos.Invalid, "there is no signal %d", sig)
	}
	a := s.Identity.Account
	j, job, err := m.lookup(ctx, a, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	if ended(job) {
		return nil, xos.Errorf(xos.NotFound, "job %s has ended", job.Id)
	}
	switch {
	case sig == 0:
	case j != nil && (sig == sigKill || sig == -sigKill):
		j.wantKill("its user wants it")
		err = j.signal(ctx, sigKill)
		if xos.Is(err, xos.Unavailable) {
			err = nil // it will happen
		}
	case j != nil:
		err = j.signal(ctx, sig)
	default:
		err = m.signalElsewhere(ctx, a, job, sig)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.SignalResponse{}), nil
}

// signalElsewhere signals a job that another machine manages.
func (m *Manager) signalElsewhere(ctx context.Context, a xos.Account, job *xosv1.Job, sig int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*silence)
	defer cancel()
	kill := sig == sigKill || sig == -sigKill
	if kill {
		d, done, err := m.peers.directoryFor(ctx, a)
		if err != nil {
			return err
		}
		defer done()
		if _, err := d.RequestKill(ctx, connect.NewRequest(&xosv1.RequestKillRequest{Job: job.Id})); err != nil {
			return err
		}
	}
	if job.Started == nil {
		if kill {
			return nil
		}
		return xos.Errorf(xos.Unavailable, "job %s does not run yet", job.Id)
	}
	e, done, err := m.peers.executionFor(ctx, a, job.ExecutionNode, job.ExecutionAddress)
	if err != nil {
		return err
	}
	defer done()
	_, err = e.SignalUnit(ctx, connect.NewRequest(&xosv1.SignalUnitRequest{Job: job.Id, Signal: int32(sig), Account: a.String()}))
	if kill && xos.Is(err, xos.Unavailable) {
		return nil
	}
	return err
}
