package aemtest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func accountOf(order []byte) (string, error) {
	var c xosv1.OrderContent
	if err := proto.Unmarshal(order, &c); err != nil {
		return "", err
	}
	return c.Account.GetUser() + "@" + c.Account.GetVo(), nil
}

// Sessions stands in for the session service: everybody has a session, and a
// home in a directory of the test.
type Sessions struct {
	ca      *credtest.Authority
	node    xos.NodeID
	homes   string
	revoked chan session.Sentence

	mu       sync.Mutex
	admitted map[xos.Account]int
	held     map[xos.Account]session.Credential
	uids     map[uint32]xos.Account
}

var _ session.Sessions = (*Sessions)(nil)

// UID is that of an account, on every machine.
func UID(a xos.Account) uint32 {
	return session.FirstID + 100_000 + crc32.ChecksumIEEE([]byte(a.String()))%1000
}

// Login lets a local uid speak for an account.
func (s *Sessions) Login(uid uint32, a xos.Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uids == nil {
		s.uids = map[uint32]xos.Account{}
	}
	s.uids[uid] = a
}

// Of implements session.Sessions.
func (s *Sessions) Of(ctx context.Context, uid uint32) (session.Session, error) {
	s.mu.Lock()
	a, ok := s.uids[uid]
	s.mu.Unlock()
	if !ok {
		return session.Session{}, xos.Errorf(xos.Permission, "uid %d has no session here", uid)
	}
	c, err := s.Credential(ctx, a)
	return session.Session{ID: "s1", Identity: c.Identity, Mapping: s.mapping(a)}, err
}

// Credential implements session.Sessions.
func (s *Sessions) Credential(_ context.Context, a xos.Account) (session.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.held[a]; ok {
		return c, nil
	}
	cert := s.ca.Delegated(a.String(), s.node, credtest.Groups("higgs"))
	var err error
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return session.Credential{}, err
	}
	id, err := credential.FromX509(cert.Leaf)
	if err != nil {
		return session.Credential{}, err
	}
	if s.held == nil {
		s.held = map[xos.Account]session.Credential{}
	}
	s.held[a] = session.Credential{Certificate: cert, Identity: id}
	return s.held[a], nil
}

func (s *Sessions) mapping(a xos.Account) session.Mapping {
	uid := UID(a)
	return session.Mapping{Account: a, UID: uid, Home: filepath.Join(s.homes, string(a.VO), string(a.User)), Shell: "/bin/sh",
		Groups: []session.Group{{Name: string(a.VO), GID: uid + 2000}}}
}

// Admit implements session.Sessions.
func (s *Sessions) Admit(_ context.Context, who vom.Identity, grant session.Credential) (session.Mapping, func(), error) {
	if grant.Identity.Account != who.Account {
		return session.Mapping{}, nil, xos.Errorf(xos.Permission, "a grant of %s for %s", grant.Identity.Account, who.Account)
	}
	m := s.mapping(who.Account)
	if err := os.MkdirAll(m.Home, 0o755); err != nil {
		return m, nil, err
	}
	if err := os.Chown(m.Home, int(m.UID), int(m.UID)); err != nil {
		return m, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted[who.Account]++
	return m, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.admitted[who.Account]--
	}), nil
}

// Admitted is how many admissions of an account are not yet released.
func (s *Sessions) Admitted(a xos.Account) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admitted[a]
}

// Revoke ends an account's access.
func (s *Sessions) Revoke(a xos.Account) { s.Sentence(a, session.End) }

// Sentence says what the jobs of an account must do.
func (s *Sessions) Sentence(a xos.Account, do session.Doing) {
	s.revoked <- session.Sentence{Account: a, Do: do}
}

// Revoked implements session.Sessions.
func (s *Sessions) Revoked() <-chan session.Sentence { return s.revoked }

// Guard stands in for nodeguard: cgroups only. What its meter says is made up.
type Guard struct {
	root, subtree string

	mu    sync.Mutex
	known map[xos.JobID]bool
}

var (
	_ nodeguard.Guard = (*Guard)(nil)
	_ nodeguard.Meter = (*Guard)(nil)
)

// Sent is how many bytes each job has sent, to the stand-in.
const Sent = 4242

// Used implements nodeguard.Meter.
func (g *Guard) Used(_ context.Context, _ xos.Account, job xos.JobID) (nodeguard.Used, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.known[job] {
		return nodeguard.Used{}, xos.Errorf(xos.NotFound, "nothing is known of job %s", job)
	}
	return nodeguard.Used{NetOut: Sent, Execs: 3, Uncounted: []string{"cpu", "memory", "disk", "opens"}}, nil
}

// kill kills all in a cgroup.
func kill(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}

// gone is whether there was no such cgroup, or no more when its file was used.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

// EndJob implements nodeguard.Meter.
func (g *Guard) EndJob(ctx context.Context, a xos.Account, job xos.JobID) (nodeguard.Used, error) {
	if err := kill(g.root + g.subtree + "/job-" + string(job)); err != nil && !gone(err) {
		return nodeguard.Used{}, err
	}
	return g.Used(ctx, a, job)
}

func newGuard(t testing.TB) *Guard {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			return &Guard{root: root, subtree: fmt.Sprintf("/xos/vo-aemtest-%x", rand.Uint64()), known: map[xos.JobID]bool{}}
		}
	}
	t.Fatal("no cgroup version 2")
	return nil
}

func (g *Guard) Level() (nodeguard.Level, []nodeguard.Feature)    { return nodeguard.LevelNone, nil }
func (g *Guard) Login(context.Context, xos.Account, uint32) error { return nil }
func (g *Guard) SessionNamespace(context.Context, xos.VOName) (int, error) {
	return -1, xos.Errorf(xos.NotSupported, "tests have no sessions")
}
func (g *Guard) Labelled(context.Context) ([]uint32, error)        { return nil, nil }
func (g *Guard) Rest(context.Context, uint32, func() bool) error   { return nil }
func (g *Guard) Forget(context.Context, uint32, func() bool) error { return nil }
func (g *Guard) LoginsUsed(context.Context, uint32) (nodeguard.Used, error) {
	return nodeguard.Used{}, xos.Errorf(xos.NotFound, "a stand-in")
}
func (g *Guard) KillUser(context.Context, session.IDs) error               { return nil }
func (g *Guard) Freeze(context.Context, session.IDs, bool) (string, error) { return "", nil }
func (g *Guard) Close() error                                              { return nil }

func (g *Guard) JobCgroup(_ context.Context, a xos.Account, job xos.JobID) (string, error) {
	path := g.subtree + "/job-" + string(job)
	g.mu.Lock()
	g.known[job] = true
	g.mu.Unlock()
	return path, os.MkdirAll(g.root+path, 0o755)
}

func (g *Guard) RemoveJob(ctx context.Context, a xos.Account, job xos.JobID) error {
	g.mu.Lock()
	delete(g.known, job)
	g.mu.Unlock()
	dir := g.root + g.subtree + "/job-" + string(job)
	if gone(kill(dir)) {
		return nil
	}
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			os.Remove(filepath.Dir(dir))
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// endUnits ends the supervisors that a test left.
func (n *Node) endUnits() {
	entries, _ := os.ReadDir(n.Units())
	for _, e := range entries {
		var st unit.State
		if unit.Read(filepath.Join(n.Units(), e.Name(), unit.StateFile), &st) == nil && st.Alive() {
			syscall.Kill(st.PID, syscall.SIGKILL)
		}
		var spec unit.Spec
		if unit.Read(filepath.Join(n.Units(), e.Name(), unit.SpecFile), &spec) == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			n.Guard.RemoveJob(ctx, spec.Account, spec.Job)
			cancel()
		}
	}
	// Version 1 hierarchies, where there are any, keep the directory.
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + n.Guard.subtree)
	for _, dir := range left {
		jobs, _ := filepath.Glob(dir + "/job-*")
		for _, job := range append(jobs, dir) {
			os.Remove(job)
		}
	}
}

// Lose ends all units and their files, as a restart of the machine does.
func (n *Node) Lose(ids ...string) {
	n.endUnits()
	for _, id := range ids {
		os.RemoveAll(filepath.Join(n.Units(), id))
	}
}
