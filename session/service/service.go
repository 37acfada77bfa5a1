// Package service implements the session service of a machine: it answers the
// modules in other programs' processes (session/wire), opens and ends login
// sessions, keeps for each grid account the delegated credential and the
// mounted home, and is the gate through which users' tools and the other
// services of the machine ask who somebody is.
//
// What it has told others survives it: uids are durable (session/account), and
// sessions and accounts have records below Config.Run, by which a new process
// goes on where a killed one stopped. Its end disturbs no login.
//
// # Locks
//
// person.work serialises what happens to one account's credential and home and
// is held during calls to others; Service.mu guards all fields and is held for
// short; publish orders the writing of snapshots, vouching that of what sshd is
// told in advance. They are taken in the order
// person.work, publish, vouching, Service.mu.
package service

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Config says where and how; what is empty has the value given.
type Config struct {
	Node   xos.NodeID    // this machine; must be given
	Run    string        // /run/xos: sessions, accounts, cred and nss below it
	Homes  string        // /home/xos
	Shell  string        // /bin/bash
	Linger time.Duration // how long a home stays after its last use; 1 min
	Tend   time.Duration // how often missing credentials and homes are tried; 10 s
	// Idle is how long an account may be unused before its uid is taken out of
	// use; 0: for ever. Retire is how often that is looked after; 1 h.
	Idle, Retire time.Duration
}

// Policy decides on this machine.
type Policy interface {
	vom.Decider
	Serves(xos.VOName) bool
}

// Certifier is the part of xosv1connect.CredentialsClient that is used here.
type Certifier interface {
	Issue(context.Context, *connect.Request[xosv1.IssueRequest]) (*connect.Response[xosv1.IssueResponse], error)
	Delegate(context.Context, *connect.Request[xosv1.DelegateRequest]) (*connect.Response[xosv1.DelegateResponse], error)
}

// Auditor keeps decisions and finds them again.
type Auditor interface {
	Append(ctx context.Context, r audit.Record) error
	// Note is Append, and says whether the record has a line: of refusals there
	// may be too many.
	Note(ctx context.Context, r audit.Record) (line bool, err error)
	Query(f audit.Filter) ([]audit.Entry, error)
}

// Stays is told of each session that begins or ends, for what is kept of who used
// this machine. It does not wait for others.
type Stays interface {
	Began(session.Session)
	Adopted(session.Session)
	Ended(session.Session)
}

// Deps are what the service works with. It closes none of them.
type Deps struct {
	Verifier *credential.Verifier
	Bundle   func() vom.Bundle
	Policy   Policy
	Accounts *account.Map
	Guard    nodeguard.Guard
	Mounter  session.Mounter
	// Credentials are the core's, called with this machine's certificate.
	Credentials Certifier
	Audit       Auditor
	Stays       Stays // may be nil
	// Reachable says whether the core answered last, Jobs how many run here.
	Reachable func() bool
	Jobs      func() int
	// Search looks for what is left of ids: residue.Search on this machine.
	// Progress is told how many files were walked.
	Search func(ctx context.Context, ids []residue.Subject, progress func(files int)) (residue.Report, error)
	Now    func() time.Time
	Log    *slog.Logger
}

// Service is the session service. It is safe for concurrent use.
type Service struct {
	cfg Config
	Deps

	ctx     context.Context // ends with Close: it carries what outlives a call
	stop    context.CancelFunc
	work    sync.WaitGroup
	changed chan struct{} // there is a new bundle
	revoked chan session.Sentence
	// bailiffs are those who carry a sentence out now, atOnce of them at most.
	bailiffs chan struct{}
	tending  sync.Mutex
	vouching sync.Mutex

	snaps *wire.Publisher // of what lookups may say
	looks process.Looks   // at who runs

	mu       sync.Mutex
	people   map[xos.Account]*person
	sessions map[xos.SessionID]*login
	learned  map[xos.Account][]xos.GroupName // from certificates shown and not yet used
	refusals refusals                        // of the last logins
	swept    sweepState
	proofs   []*proof
	tries    tries
	agents   map[xos.Account]*served
	attends  chan struct{} // one for each person who is attended to

	reachable bool // the core, as the last round of tend saw it

	checking chan struct{} // passwords that are being checked
}

var (
	_ wire.Handler                = (*Service)(nil)
	_ session.Sessions            = (*Service)(nil)
	_ xosv1connect.SessionHandler = (*Service)(nil)
	_ xosv1connect.UIDsHandler    = (*Service)(nil)

	_ xosv1connect.DelegationHandler = (*Service)(nil)
)

// New makes the service, takes over what a predecessor left and publishes the
// snapshots. Run must be called; Close ends it.
func New(cfg Config, deps Deps) (*Service, error) {
	if !xos.ValidName(string(cfg.Node)) {
		return nil, xos.Errorf(xos.Invalid, "%.40q is no name of a machine", cfg.Node)
	}
	for _, d := range []struct {
		at      *string
		without string
	}{{&cfg.Run, "/run/xos"}, {&cfg.Homes, "/home/xos"}, {&cfg.Shell, "/bin/bash"}} {
		if *d.at == "" {
			*d.at = d.without
		}
	}
	cfg.Homes = filepath.Clean(cfg.Homes)
	if cfg.Linger == 0 {
		cfg.Linger = time.Minute
	}
	if cfg.Retire == 0 {
		cfg.Retire = time.Hour
	}
	if cfg.Tend == 0 {
		cfg.Tend = 10 * time.Second
	}
	s := &Service{cfg: cfg, Deps: deps,
		changed: make(chan struct{}, 1), revoked: make(chan session.Sentence, 64), bailiffs: make(chan struct{}, atOnce),
		people: map[xos.Account]*person{}, sessions: map[xos.SessionID]*login{},
		learned: map[xos.Account][]xos.GroupName{}, refusals: refusals{lately: map[string]*refusal{}},
		tries: tries{}, agents: map[xos.Account]*served{}, attends: make(chan struct{}, attending), checking: make(chan struct{}, maxChecking)}
	s.snaps = wire.NewPublisher(s.snapshots(), s.Now)
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.makeDirectories(); err != nil {
		return nil, err
	}
	if err := s.adopt(); err != nil {
		s.Close()
		return nil, err
	}
	s.serveVOs(s.ctx)
	return s, nil
}

func (s *Service) makeDirectories() error {
	// Who was let in by the rules of then is seen anew.
	if err := os.RemoveAll(filepath.Join(s.cfg.Run, principalsDir)); err != nil {
		return xos.Errorf(xos.Internal, "clearing what sshd was told: %w", err)
	}
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{"", 0o755}, {"nss", 0o755}, {"sessions", 0o700}, {"accounts", 0o700}, {"cred", 0o700}, {agentDir, 0o711}, {principalsDir, 0o711}} {
		path := filepath.Join(s.cfg.Run, dir.name)
		if err := os.MkdirAll(path, dir.mode); err != nil {
			return xos.Errorf(xos.Internal, "making %s: %w", path, err)
		}
		if err := os.Chmod(path, dir.mode); err != nil {
			return xos.Errorf(xos.Internal, "making %s: %w", path, err)
		}
	}
	return nil
}

// Changed tells the service that there is a new bundle.
func (s *Service) Changed(vom.Bundle) {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run heeds new bundles and tends what is missing, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Tend)
	defer tick.Stop()
	s.sweep()
	recycling := make(chan struct{})
	go func() { defer close(recycling); s.recycle(ctx) }()
	defer func() { <-recycling }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
			s.sweep()
			s.serveVOs(ctx)
		case <-tick.C:
			s.sweep() // what was left some time has no more, bans end and begin
			s.work.Go(func() { s.tend(ctx) })
		}
	}
}

// Close ends the service; sessions, mounts and jobs go on.
func (s *Service) Close() error {
	s.stop()
	s.work.Wait()
	return nil
}

// Alive returns when the service is not stuck, for a watchdog.
func (s *Service) Alive() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// serves reports whether this machine serves a VO now.
func (s *Service) serves(vo xos.VOName) bool {
	if !s.Policy.Serves(vo) {
		return false
	}
	_, ok := s.Accounts.Group(string(vo))
	return ok
}
