package execution

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/order"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
)

// startTime bounds how long a unit may take to start.
const startTime = 30 * time.Second

// Start implements ExecutionHandler. The same order again gives the same unit.
func (e *Execution) Start(ctx context.Context, req *connect.Request[xosv1.StartRequest]) (*connect.Response[xosv1.StartResponse], error) {
	peer, err := e.Verifier.Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return nil, err
	}
	if peer.Service != vom.ServiceNode {
		return nil, xos.Errorf(xos.Permission, "service %q of %s may not start jobs", peer.Service, peer.Node)
	}
	m := req.Msg
	signed := order.Signed{Content: m.Order, Signature: m.OrderSignature, Chain: m.OrderChain}
	v, err := order.Verify(e.Verifier, signed, m.Spec, e.cfg.Node, peer.Node, e.Now())
	if err != nil {
		e.audit(ctx, audit.Record{Actor: string(peer.Node) + " (node)", Action: "run", Reason: err.Error(),
			Origin: audit.Origin{Name: string(peer.Node) + " (node)", Known: true}})
		return nil, err
	}
	old, err := e.reserve(v.Job, order.Hash(signed))
	if err != nil {
		return nil, err
	}
	if old != nil {
		return connect.NewResponse(&xosv1.StartResponse{Job: old.status()}), nil
	}
	defer func() {
		e.mu.Lock()
		delete(e.pending, v.Job)
		e.mu.Unlock()
	}()
	decision := e.Decider.Decide(ctx, v.Who, vom.ActionRun, e.cfg.Node)
	if err := e.audit(ctx, audit.Record{Actor: v.Who.Account.String(), Action: "run", Subject: "job " + string(v.Job), Allowed: decision.Allow,
		Origin: audit.Origin{Name: v.Who.Account.String(), Known: true},
		Reason: decision.Reason, Policy: decision.Policy, Detail: map[string]string{"from": string(peer.Node), "serial": v.Who.Serial, "command": v.Spec.Argv[0]}}); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "%s cannot record its decisions", e.cfg.Node)
	}
	if !decision.Allow {
		return nil, xos.Errorf(xos.Permission, "%s may not run jobs on %s: %s", v.Who.Account, e.cfg.Node, decision.Reason).WithHint("xos explain %s", v.Who.Account)
	}
	// A start goes on when the caller has left: it asks again.
	ctx, cancel := context.WithTimeout(e.ctx, startTime)
	defer cancel()
	r, err := e.start(ctx, v, signed, m)
	if err != nil {
		e.Log.Warn("a job was not started", slog.Any("job", v.Job), slog.String("account", v.Who.Account.String()), slog.Any("error", err))
		return nil, err
	}
	e.Log.Info("job started", slog.Any("job", v.Job), slog.String("account", v.Who.Account.String()), slog.Any("from", peer.Node))
	return connect.NewResponse(&xosv1.StartResponse{Job: r.status()}), nil
}

func (e *Execution) audit(ctx context.Context, r audit.Record) error {
	err := e.Audit.Append(ctx, r)
	if err != nil {
		e.Log.Error("the audit log cannot be written", "error", err)
	}
	return err
}

// reserve makes sure that one job is started once; it gives the unit that the
// same order has started before.
func (e *Execution) reserve(job xos.JobID, hash []byte) (*running, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.units[job]; r != nil {
		if bytes.Equal(r.spec.Order, hash) {
			return r, nil
		}
		return nil, xos.Errorf(xos.Exists, "job %s was started here by another order", job)
	}
	if e.pending[job] {
		return nil, xos.Errorf(xos.Unavailable, "job %s is being started", job)
	}
	live := len(e.pending)
	for _, r := range e.units {
		if !r.over() {
			live++
		}
	}
	if live >= e.cfg.MaxJobs {
		return nil, xos.Errorf(xos.Unavailable, "%s runs %d jobs already", e.cfg.Node, live)
	}
	e.pending[job] = true
	return nil, nil
}

// start admits the user and starts the unit; on failure nothing stays.
func (e *Execution) start(ctx context.Context, v order.Verified, signed order.Signed, m *xosv1.StartRequest) (r *running, err error) {
	grant, err := e.grant(ctx, v.Who, signed)
	if err != nil {
		return nil, err
	}
	who := grant.Identity
	mapping, release, err := e.Sessions.Admit(ctx, who, grant)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	if err := e.Guard.Login(ctx, who.Account, mapping.UID); err != nil {
		return nil, err
	}
	cgroup, err := e.Guard.JobCgroup(ctx, who.Account, v.Job)
	if err != nil {
		return nil, err
	}
	spec := e.spec(v, mapping, cgroup)
	spec.Order, spec.Stdin, spec.TTY = order.Hash(signed), m.Stdin, m.Tty
	spec.Rows, spec.Columns = uint16(min(m.Rows, 1<<15)), uint16(min(m.Columns, 1<<15))
	r = &running{dir: filepath.Join(e.cfg.Dir, string(v.Job)), spec: spec, release: release, exited: make(chan struct{})}
	if err := e.launch(ctx, r, grant); err != nil {
		e.Guard.RemoveJob(ctx, who.Account, v.Job)
		return nil, err
	}
	st, err := r.state()
	if err != nil {
		return nil, err
	}
	r.job = e.complete(unit.Job(spec, st))
	e.mu.Lock()
	e.units[v.Job] = r
	e.mu.Unlock()
	e.work.Go(func() { e.watch(r) })
	return r, nil
}

// spec is what the supervisor shall do.
func (e *Execution) spec(v order.Verified, m session.Mapping, cgroup string) unit.Spec {
	s := unit.Spec{
		Job: v.Job, Account: v.Who.Account, Name: v.Spec.Name, SubmitNode: v.Who.Node, Submitted: e.Now(),
		UID: m.UID, GID: m.UID, Home: m.Home,
		HomesRoot: e.cfg.Homes, Homes: filepath.Join(e.cfg.Homes, string(v.Who.VO)), Runtime: e.cfg.Runtime,
		Argv: v.Spec.Argv, Env: environment(v, m), Directory: v.Spec.Directory, Umask: v.Spec.Umask & 0o777,
		Cgroup: cgroup, Limits: v.Spec.Limits,
	}
	for _, g := range m.Groups {
		s.Groups = append(s.Groups, g.GID)
	}
	return s
}

// environment is the user's, with what is different on this machine set anew.
func environment(v order.Verified, m session.Mapping) []string {
	account := v.Who.Account.String()
	here := []string{"HOME=" + m.Home, "USER=" + account, "LOGNAME=" + account, "SHELL=" + m.Shell,
		"XOS_JOB=" + string(v.Job), "XOS_VO=" + string(v.Who.VO)}
	defaults := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}
	name := func(e string) string { return e[:strings.IndexByte(e, '=')+1] }
	has := func(list []string, e string) bool {
		return slices.ContainsFunc(list, func(x string) bool { return strings.HasPrefix(x, name(e)) })
	}
	env := here
	for _, e := range v.Spec.Env {
		if !has(here, e) {
			env = append(env, e)
		}
	}
	for _, e := range defaults {
		if !has(env, e) {
			env = append(env, e)
		}
	}
	return env
}
