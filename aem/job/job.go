// Package job manages the jobs that this machine's users submit, and serves
// the Jobs calls of their tools. A job's manager finds a machine, orders the
// start there, and attends to the job until its end is recorded; what it knows
// is in a file per job, so that a restart forgets nothing. From other machines
// users reach their jobs through the job directory.
package job

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/srds"
	"github.com/xtreemos/xos/vom/credential"
)

// Config says where and how; what is empty has the value given.
type Config struct {
	Node xos.NodeID // this machine; must be given
	Site string     // begins the ids of its jobs; "xos"
	Dir  string     // of the managed jobs; /var/lib/xos/node/jobs
	// Patience is how long a submission waits for what is briefly away; 30 s. The
	// last question asked by then may be waited for as long again.
	Patience time.Duration
	// Lost is how long the machine of a running job may be silent before the
	// job is given up; 30 s.
	Lost time.Duration
	// Find is how long machines have to answer at first; 300 ms. If none does they
	// are asked again and have twice the time.
	Find time.Duration
}

// Deps are what the manager works with. It closes none of them.
type Deps struct {
	Verifier  *credential.Verifier
	Sessions  session.Sessions
	Resources srds.Directory
	Machine   credential.Certificate // of this machine
	Core      func() string          // host:port of the core
	Now       func() time.Time
	Log       *slog.Logger
}

// Manager implements xosv1connect.JobsHandler.
type Manager struct {
	cfg Config
	Deps
	peers peers

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup

	mu   sync.Mutex
	jobs map[xos.JobID]*managed
}

var _ xosv1connect.JobsHandler = (*Manager)(nil)

// New makes the manager and takes over the jobs of its predecessor. Close
// ends it; the jobs go on.
func New(cfg Config, deps Deps) (*Manager, error) {
	if cfg.Node == "" {
		return nil, xos.Errorf(xos.Invalid, "the job manager needs the name of this machine")
	}
	if cfg.Site == "" {
		cfg.Site = "xos"
	}
	if !xos.ValidName(cfg.Site) {
		return nil, xos.Errorf(xos.Invalid, "%.40q is no name of a site", cfg.Site)
	}
	if cfg.Dir == "" {
		cfg.Dir = "/var/lib/xos/node/jobs"
	}
	for _, d := range []struct {
		at      *time.Duration
		without time.Duration
	}{{&cfg.Patience, 30 * time.Second}, {&cfg.Lost, 30 * time.Second}, {&cfg.Find, 300 * time.Millisecond}} {
		if *d.at == 0 {
			*d.at = d.without
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, Deps: deps, jobs: map[xos.JobID]*managed{}}
	m.peers = peers{m: m, machine: map[string]*http.Client{}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if err := m.load(); err != nil {
		m.stop()
		return nil, err
	}
	return m, nil
}

// Run returns when ctx has ended; attached clients are sent away then, and ask
// the next manager.
func (m *Manager) Run(ctx context.Context) error {
	<-ctx.Done()
	m.stop()
	return nil
}

// Close stops attending to the jobs.
func (m *Manager) Close() error {
	m.stop()
	m.work.Wait()
	m.peers.close()
	return nil
}

// Count is the number of jobs managed here that have not ended.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, j := range m.jobs {
		if !ended(j.record()) {
			n++
		}
	}
	return n
}

// caller is the session that a local call belongs to.
func (m *Manager) caller(ctx context.Context) (session.Session, uint32, error) {
	p := rpc.PeerFrom(ctx)
	if !p.Unix {
		return session.Session{}, 0, xos.Errorf(xos.Permission, "jobs are submitted on this machine only")
	}
	s, err := m.Sessions.Of(ctx, p.UID)
	return s, p.UID, err
}

// own gives a job managed here, if it is the account's.
func (m *Manager) own(id string, a xos.Account) *managed {
	m.mu.Lock()
	j := m.jobs[xos.JobID(id)]
	m.mu.Unlock()
	if j == nil || j.account != a {
		return nil
	}
	return j
}

func ended(job *xosv1.Job) bool {
	switch job.GetState() {
	case xosv1.JobState_JOB_STATE_DONE, xosv1.JobState_JOB_STATE_CANCELED, xosv1.JobState_JOB_STATE_FAILED:
		return true
	}
	return false
}
