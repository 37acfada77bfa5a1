package job

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
)

// Attach implements JobsHandler: a job's stdio between its user's tool and the
// machine on which it runs, across breaks of the connection to that machine.
func (m *Manager) Attach(ctx context.Context, stream *connect.BidiStream[xosv1.ToJob, xosv1.FromJob]) error {
	s, _, err := m.caller(ctx)
	if err != nil {
		return err
	}
	hello, err := stream.Receive()
	if err != nil {
		return err
	}
	a := s.Identity.Account
	j, job, err := m.lookup(ctx, a, hello.Job)
	if err != nil {
		return err
	}
	if job.Started == nil {
		if ended(job) {
			return stream.Send(&xosv1.FromJob{Job: job, Ended: true})
		}
		return xos.Errorf(xos.Unavailable, "job %s does not run yet", job.Id)
	}
	execution := m.peers.execution(job.ExecutionNode, job.ExecutionAddress)
	if j == nil {
		e, done, err := m.peers.executionFor(ctx, a, job.ExecutionNode, job.ExecutionAddress)
		if err != nil {
			return err
		}
		defer done()
		execution = e
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	p := newProxy(hello, stream.Send)
	go func() {
		defer cancel()
		for {
			msg, err := stream.Receive()
			if err != nil {
				return
			}
			if err := p.hear(msg); err != nil {
				return
			}
		}
	}()
	if err := p.tell(&xosv1.FromJob{Job: job}); err != nil {
		return err
	}
	err = m.connect(ctx, p, execution, j, job)
	if m.ctx.Err() != nil {
		return errRestart()
	}
	if ctx.Err() != nil {
		return nil // the tool has left
	}
	return err
}

// connect keeps the proxy connected until the job has ended and all is told.
func (m *Manager) connect(ctx context.Context, p *proxy, e xosv1connect.ExecutionClient, j *managed, job *xosv1.Job) error {
	var silent time.Time
	told := ""
	say := func(notice string) error {
		if notice == "" || notice == told {
			return nil
		}
		told = notice
		return p.tell(&xosv1.FromJob{Notice: notice})
	}
	for {
		heard, err := p.run(ctx, e, job)
		if err == nil || ctx.Err() != nil || !xos.Is(err, xos.Unavailable) && !xos.Is(err, xos.NotFound) {
			return err
		}
		if heard || silent.IsZero() {
			if heard && told != "" {
				told = ""
			}
			silent = m.Now()
		}
		quiet := m.Now().Sub(silent)
		final := job
		if j != nil {
			final = j.record()
		}
		// The job has ended and its output cannot be had: say so, and how.
		if gone := xos.Is(err, xos.NotFound); gone || quiet > m.cfg.Lost || ended(final) && final.State == xosv1.JobState_JOB_STATE_FAILED {
			if !ended(final) {
				if final, err = m.outcome(ctx, j, job); err != nil {
					return err
				}
			}
			if final.State != xosv1.JobState_JOB_STATE_FAILED {
				if err := say("the last output of job " + job.Id + " could not be fetched"); err != nil {
					return err
				}
			}
			return p.tell(&xosv1.FromJob{Job: final, Ended: true})
		}
		if quiet > grace {
			notice := job.ExecutionNode + " does not answer; still trying"
			if j != nil {
				if _, trouble, _ := j.watch(); trouble != "" {
					notice = trouble
				}
			}
			if err := say(notice); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// outcome waits for the record of an end, for as long as the job's manager may
// take to give it up.
func (m *Manager) outcome(ctx context.Context, j *managed, job *xosv1.Job) (*xosv1.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Lost+5*time.Second)
	defer cancel()
	a, err := xos.ParseAccount(job.Account)
	if err != nil {
		return nil, err
	}
	for {
		if j != nil {
			if job = j.record(); ended(job) {
				return job, nil
			}
		} else if _, rec, err := m.lookup(ctx, a, job.Id); err == nil && ended(rec) {
			return rec, nil
		}
		select {
		case <-ctx.Done():
			return nil, xos.Errorf(xos.Unavailable, "%s does not know job %s any more", job.ExecutionNode, job.Id)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// run is one connection of the proxy; nil when the job has ended and all was
// told.
func (p *proxy) run(ctx context.Context, e xosv1connect.ExecutionClient, job *xosv1.Job) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := e.AttachUnit(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	first := time.AfterFunc(silence, cancel)
	defer first.Stop()
	if err := p.begin(job.Id, s.Send); err != nil {
		if errors.Is(err, io.EOF) || xos.Is(err, xos.Unavailable) {
			if _, rerr := s.Receive(); rerr != nil {
				err = rerr
			}
		}
		return false, err
	}
	defer p.end()
	for {
		msg, err := s.Receive()
		if errors.Is(err, io.EOF) {
			err = xos.Errorf(xos.Unavailable, "%s ended the connection", job.ExecutionNode)
		}
		if err != nil {
			return heard, err
		}
		first.Stop()
		heard = true
		if msg.Job != nil {
			full := proto.CloneOf(msg.Job)
			full.Spec, full.Submitted, full.ExecutionAddress = job.Spec, job.Submitted, job.ExecutionAddress
			msg.Job = full
		}
		if err := p.pass(msg); err != nil {
			return heard, err
		}
		if msg.Ended {
			p.farewell(ctx)
			return heard, nil
		}
	}
}
