package execution

import (
	"bufio"
	"context"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// allowed gives a unit to those who may attend to it: the machine it was
// submitted on, or one that acts for its user.
func (e *Execution) allowed(ctx context.Context, job string) (*running, error) {
	none := xos.Errorf(xos.NotFound, "there is no job %.80s on %s", job, e.cfg.Node)
	chain := rpc.PeerFrom(ctx).Chain
	if len(chain) == 0 {
		return nil, xos.Errorf(xos.Permission, "a certificate is needed")
	}
	r := e.find(xos.JobID(job))
	if _, err := credential.MachineFromX509(chain[0]); err == nil {
		m, err := e.Verifier.Machine(chain)
		if err != nil {
			return nil, err
		}
		if r == nil || m.Service != vom.ServiceNode || m.Node != r.spec.SubmitNode {
			return nil, none
		}
		return r, nil
	}
	id, err := e.Verifier.X509Running(chain)
	if err != nil {
		return nil, err
	}
	if r == nil || id.Node == "" || id.Account != r.spec.Account {
		return nil, none
	}
	return r, nil
}

// UnitStatus implements ExecutionHandler.
func (e *Execution) UnitStatus(ctx context.Context, req *connect.Request[xosv1.UnitStatusRequest]) (*connect.Response[xosv1.Job], error) {
	r, err := e.allowed(ctx, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(r.status()), nil
}

// SignalUnit implements ExecutionHandler; it returns when the signal has been
// delivered, STOP and CONT when they took effect.
func (e *Execution) SignalUnit(ctx context.Context, req *connect.Request[xosv1.SignalUnitRequest]) (*connect.Response[xosv1.SignalResponse], error) {
	r, err := e.allowed(ctx, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	sig := int(req.Msg.Signal)
	if sig == 0 || sig < -64 || sig > 64 {
		return nil, xos.Errorf(xos.Invalid, "there is no signal %d", sig)
	}
	if r.over() {
		return connect.NewResponse(&xosv1.SignalResponse{}), nil
	}
	if max(sig, -sig) == int(unix.SIGCONT) {
		r.holding.Lock() // or it would be resumed just after it was held
		defer r.holding.Unlock()
		if r.held() != "" {
			return nil, xos.Errorf(xos.Permission, "job %s is frozen: the access of %s ended", r.spec.Job, r.spec.Account)
		}
	}
	if err := e.signal(ctx, r, sig); err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.SignalResponse{}), nil
}

func (e *Execution) signal(ctx context.Context, r *running, sig int) error {
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := r.signal(asking, sig)
	if err == nil || sig != int(unix.SIGKILL) || r.over() {
		return err
	}
	// Killing must not depend on the supervisor's good will, nor on there
	// being time left after waiting for it.
	e.Log.Warn("a supervisor does not answer; its job is killed without it", "job", r.spec.Job, "error", err)
	r.mu.Lock()
	r.killed = true
	r.mu.Unlock()
	killing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return e.killAll(killing, r)
}

// killAll ends a unit's processes. What it used stays to be asked for.
func (e *Execution) killAll(ctx context.Context, r *running) error {
	if e.Meter == nil {
		return e.Guard.RemoveJob(ctx, r.spec.Account, r.spec.Job)
	}
	_, err := e.Meter.EndJob(ctx, r.spec.Account, r.spec.Job)
	if xos.Is(err, xos.NotFound) {
		return nil
	}
	return err
}

// signal asks the supervisor, and waits for its word that it is done.
func (r *running) signal(ctx context.Context, sig int) error {
	c, err := r.dial(ctx, &xosv1.ToJob{Watch: true, Signal: int32(sig)})
	if err != nil {
		return xos.Errorf(xos.Unavailable, "the supervisor of job %s does not answer: %w", r.spec.Job, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for in := bufio.NewReader(c); ; {
		var m xosv1.FromJob
		if err := unit.ReadFrame(in, &m); err != nil {
			if r.over() {
				return nil
			}
			return xos.Errorf(xos.Unavailable, "the supervisor of job %s does not answer: %w", r.spec.Job, err)
		}
		switch {
		case m.Ended || m.SignalsDone > 0:
			return nil
		case m.SignalFailed:
			return xos.Errorf(xos.Unavailable, "%s", m.Notice)
		}
	}
}

// kill ends a unit for a reason that its record shall tell.
func (e *Execution) kill(ctx context.Context, r *running, why string) {
	if r.over() {
		return
	}
	r.mu.Lock()
	if r.why == "" {
		r.why = why
	}
	r.mu.Unlock()
	if err := e.signal(ctx, r, int(unix.SIGKILL)); err != nil && !r.over() {
		e.Log.Error("a job was not killed", "job", r.spec.Job, "error", err)
	}
}
