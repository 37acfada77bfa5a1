// Package execution starts and keeps the job units of this machine, and serves
// the Execution calls of other machines. Each unit has a supervisor process of
// its own (aem/supervise) in /run/xos/jobs/ID, so that units outlive this
// process; a new one finds them there.
//
// Who may do what: the machine that a job was submitted on starts it, with the
// user's order, and attends to it; so may any machine to which the user
// delegated a credential. All else is told that there is no such job.
package execution

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Config says where and how; what is empty has the value given.
type Config struct {
	Node       xos.NodeID    // this machine; must be given
	Dir        string        // of the units; /run/xos/jobs
	Supervisor string        // /usr/libexec/xos/xos-job
	Homes      string        // homes of all VOs; /home/xos
	Runtime    string        // what jobs find the machine's services in; /run/xos
	MaxJobs    int           // units at once; 512
	Keep       time.Duration // how long unread output is kept; 1 h
	Sync       time.Duration // how often the directory is asked for wishes; 10 s
	Measure    time.Duration // how often it is written down what running jobs used; 1 min
}

// Deps are what execution works with. It closes none of them.
type Deps struct {
	Verifier *credential.Verifier
	Decider  vom.Decider
	Sessions session.Sessions
	Guard    nodeguard.Guard
	// Meter tells what jobs use, and Usage keeps it. Without, nobody does.
	Meter nodeguard.Meter
	Usage Ledger
	// Credentials and Directory are the core's, called with this machine's
	// certificate.
	Credentials Delegator
	Directory   xosv1connect.JobDirectoryClient
	Audit       Auditor
	Now         func() time.Time
	Log         *slog.Logger
}

// Auditor keeps decisions.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) error
}

// Execution implements xosv1connect.ExecutionHandler.
type Execution struct {
	cfg Config
	Deps

	// ctx ends with Run: it carries what outlives a call.
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	units   map[xos.JobID]*running
	pending map[xos.JobID]bool // being started
}

var _ xosv1connect.ExecutionHandler = (*Execution)(nil)

// running is one unit, until it is forgotten.
type running struct {
	dir     string
	spec    unit.Spec
	release func() // its admission
	exited  chan struct{}
	holding sync.Mutex // it is being stopped or resumed: see hold

	mu     sync.Mutex
	job    *xosv1.Job // how it stands
	killed bool       // without its supervisor
	why    string     // who ended it, where that is known
	forget time.Time  // when to remove the directory, once ended and reported
}

// New makes the manager and finds the units that a predecessor left; they are
// attended to from then on. Run must be called; Close ends all but the units.
func New(cfg Config, deps Deps) (*Execution, error) {
	if cfg.Node == "" {
		return nil, xos.Errorf(xos.Invalid, "execution needs the name of this machine")
	}
	for _, d := range []struct {
		at      *string
		without string
	}{{&cfg.Dir, "/run/xos/jobs"}, {&cfg.Supervisor, "/usr/libexec/xos/xos-job"}, {&cfg.Homes, "/home/xos"}, {&cfg.Runtime, "/run/xos"}} {
		if *d.at == "" {
			*d.at = d.without
		}
	}
	if cfg.MaxJobs == 0 {
		cfg.MaxJobs = 512
	}
	if cfg.Keep == 0 {
		cfg.Keep = time.Hour
	}
	if cfg.Sync == 0 {
		cfg.Sync = 10 * time.Second
	}
	if cfg.Measure == 0 {
		cfg.Measure = time.Minute
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Execution{cfg: cfg, Deps: deps, ctx: ctx, stop: stop, units: map[xos.JobID]*running{}, pending: map[xos.JobID]bool{}}
	if err := e.adopt(); err != nil {
		stop()
		return nil, err
	}
	if e.Usage != nil {
		err := e.Usage.Abandon(func(id xos.JobID) bool { return e.find(id) != nil })
		if err != nil {
			stop()
			e.work.Wait()
			return nil, err
		}
	}
	return e, nil
}

// Run keeps the units' records and obeys wishes and revocations until ctx
// ends; then attached clients are sent away too, so that a server that waits
// for them need not.
func (e *Execution) Run(ctx context.Context) error {
	sync := time.NewTicker(e.cfg.Sync)
	defer sync.Stop()
	measure := time.NewTicker(e.cfg.Measure)
	defer measure.Stop()
	defer e.stop()
	e.work.Go(func() { e.heed(ctx) })
	for {
		e.synchronize(ctx)
		e.clean()
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return nil
			case <-measure.C:
				e.measure(ctx)
			case <-sync.C:
				due = true
			}
		}
	}
}

// Close stops attending to the units, which go on.
func (e *Execution) Close() error {
	e.stop()
	e.work.Wait()
	return nil
}

// Count is the number of units that have not ended.
func (e *Execution) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.pending)
	for _, r := range e.units {
		if !r.over() {
			n++
		}
	}
	return n
}

// all gives the present units.
func (e *Execution) all() []*running {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*running, 0, len(e.units))
	for _, r := range e.units {
		list = append(list, r)
	}
	return list
}

func (e *Execution) find(id xos.JobID) *running {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.units[id]
}

// status gives how the unit stands; the caller must not change it.
func (r *running) status() *xosv1.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.job
}

func (r *running) over() bool { return aem.State.Ended(unit.StateOf(r.status().State)) }

// complete adds to what a supervisor tells what only the machine knows.
func (e *Execution) complete(job *xosv1.Job) *xosv1.Job {
	job.ExecutionNode = string(e.cfg.Node)
	return job
}
