package service_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/session/service"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/vops"
)

var alice = xos.Account{User: "alice", VO: "physics"}

// stage is a machine "node1" with a core, of which the guard and the mounts
// are stand-ins.
type stage struct {
	*testing.T
	ca     *credtest.Authority
	dir    string
	run    string
	core   *core
	guard  *guardian
	mounts *mounts
	audit  *audit.Log
	// For the recycling of uids.
	quarantine, idle, tend, linger, retire time.Duration
	subids                                 account.Pool
	search                                 func([]residue.Subject) residue.Report
	auditor                                service.Auditor
	diary                                  diary
	// first and last bound the ids, where a test wants few; log is the service's.
	first, last uint32
	log         *slog.Logger

	accounts *account.Map
	*service.Service
	stop  func()
	born  uint64       // process ticks when the service was started
	ahead atomic.Int64 // of the service's clock
}

func newStage(t *testing.T) *stage {
	t.Helper()
	need.Root(t)
	dir := t.TempDir()
	s := &stage{T: t, ca: credtest.New(t), dir: dir, run: filepath.Join(dir, "run"), guard: &guardian{}, mounts: &mounts{at: map[xos.VolumeID]string{}, n: map[xos.VolumeID]int{}, vain: map[xos.VolumeID]int{}}, log: slog.New(slog.DiscardHandler)}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Groups = []xos.GroupName{"higgs"} })
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "state/.": ""} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if filepath.Base(path) == "state" {
			os.MkdirAll(path, 0o700)
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.core = newCore(t, s.ca)
	var err error
	if s.audit, err = audit.Open(filepath.Join(dir, "audit.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.audit.Close() })
	s.auditor = s.audit
	s.start()
	t.Cleanup(func() { s.kill() })
	return s
}

// start starts the service anew.
func (s *stage) start() {
	s.Helper()
	var err error
	s.accounts, err = account.Open(account.Config{Dir: filepath.Join(s.dir, "state"), Etc: filepath.Join(s.dir, "etc"), Quarantine: s.quarantine, First: s.first, Last: s.last, SubIDs: s.subids}, s.now)
	if err != nil {
		s.Fatal(err)
	}
	policy, err := vops.New(s.ca.Bundle, vops.Site{VOs: []xos.VOName{"physics", "chemistry"}, Banned: []string{"mallory"}})
	if err != nil {
		s.Fatal(err)
	}
	s.born, _ = process.Now()
	s.mounts.run = s.run
	s.Service, err = service.New(service.Config{Node: "node1", Run: s.run, Homes: filepath.Join(s.dir, "home"), Linger: cmp.Or(s.linger, 100*time.Millisecond), Tend: cmp.Or(s.tend, 50*time.Millisecond), Idle: s.idle, Retire: cmp.Or(s.retire, 20*time.Millisecond)},
		service.Deps{Verifier: s.ca.Verifier(), Bundle: s.ca.Bundle, Policy: policy, Accounts: s.accounts, Guard: s.guard, Mounter: s.mounts,
			Credentials: s.core.client(), Audit: s.auditor, Stays: &s.diary, Reachable: func() bool { return true }, Jobs: func() int { return 0 }, Now: s.now,
			Search: s.hunt, Log: s.log})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Service.Run(ctx); close(done) }()
	s.stop = func() { cancel(); <-done; s.Service.Close(); s.accounts.Close() }
}

func (s *stage) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// setClock puts the service's clock ahead.
func (s *stage) setClock(by time.Duration) { s.ahead.Store(int64(by)) }

// kill ends the service as abruptly as one process can end a part of itself.
func (s *stage) kill() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// old is a process from before the service was started.
func (s *stage) old() wire.Peer {
	s.Helper()
	p := s.login()
	// As if the service were younger.
	s.kill()
	s.start()
	for id, _ := process.Of(p.PID); s.born < id.Start; s.born, _ = process.Now() {
	}
	return p
}

// login is a process that stands for sshd's, and started after the service.
func (s *stage) login() wire.Peer {
	s.Helper()
	for {
		cmd := exec.Command("sleep", "300")
		if err := cmd.Start(); err != nil {
			s.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			s.Fatal(err)
		}
		id, err := process.Of(cmd.Process.Pid)
		if err != nil {
			s.Fatal(err)
		}
		go cmd.Wait()
		s.Cleanup(func() { cmd.Process.Kill() })
		if id.Start > s.born+1 {
			s.Cleanup(func() { unix.Close(fd) })
			return wire.Peer{PID: cmd.Process.Pid, PIDFD: fd}
		}
		cmd.Process.Kill()
		unix.Close(fd)
	}
}

func key(c *ssh.Certificate) string { return base64.StdEncoding.EncodeToString(c.Marshal()) }

func authInfo(c *ssh.Certificate) string { return "publickey " + c.Type() + " " + key(c) + "\n" }

var root = wire.Peer{PIDFD: -1}

// open goes the whole way of a login.
func (s *stage) open(a xos.Account, c *ssh.Certificate) (wire.Peer, wire.PAMOpenReply, error) {
	s.Helper()
	p := s.login()
	ctx := context.Background()
	if _, err := s.GetPwNam(ctx, root, a); err != nil {
		return p, wire.PAMOpenReply{}, err
	}
	if _, err := s.Principals(ctx, root, wire.PrincipalsRequest{Account: a, KeyType: c.Type(), Key: key(c)}); err != nil {
		return p, wire.PAMOpenReply{}, err
	}
	r := wire.PAMRequest{Account: a, Service: "sshd", RemoteHost: "192.0.2.7"}
	if _, err := s.PAMAccount(ctx, p, r); err != nil {
		return p, wire.PAMOpenReply{}, err
	}
	reply, err := s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: r, AuthInfo: authInfo(c)})
	return p, reply, err
}

// eventually waits until a condition holds.
func (s *stage) eventually(what string, f func() bool) {
	s.Helper()
	for deadline := time.Now().Add(5 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
	}
}

func dead(p wire.Peer) bool {
	set := []unix.PollFd{{Fd: int32(p.PIDFD), Events: unix.POLLIN}}
	n, _ := unix.Poll(set, 0)
	return n == 1
}

// as gives the context of a local user's call.
func as(uid uint32) context.Context {
	return rpc.WithPeer(context.Background(), rpc.Peer{Unix: true, UID: uid, GID: uid})
}

func (s *stage) sessions() int {
	s.Helper()
	resp, err := s.ListSessions(as(0), connect.NewRequest(&xosv1.ListSessionsRequest{}))
	if err != nil {
		s.Fatal(err)
	}
	return len(resp.Msg.Sessions)
}

// guardian stands in for nodeguard.
type guardian struct {
	mu     sync.Mutex
	killed []uint32
	logins []uint32
	// labels are the uids that are labelled, room how many may be; 0: any number.
	labels  map[uint32]bool
	room    int
	forget  func(uid uint32) error // what Forget ends with before it has done it
	unbound []uint32
	frozen  map[uint32]bool
	busy    chan struct{} // Freeze waits until it is closed, if it is one
}

func (g *guardian) Level() (nodeguard.Level, []nodeguard.Feature) { return nodeguard.LevelNone, nil }
func (g *guardian) Login(_ context.Context, _ xos.Account, uid uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logins = append(g.logins, uid)
	if !g.labels[uid] && g.room > 0 && len(g.labels) == g.room {
		return xos.Errorf(xos.Unavailable, "no room for a label")
	}
	if g.labels == nil {
		g.labels = map[uint32]bool{}
	}
	g.labels[uid] = true
	return nil
}
func (g *guardian) Labelled(context.Context) ([]uint32, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.labels)), nil
}
func (g *guardian) LoginsUsed(_ context.Context, uid uint32) (nodeguard.Used, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.labels[uid] {
		return nodeguard.Used{}, xos.Errorf(xos.NotFound, "nothing is known")
	}
	return nodeguard.Used{NetIn: 11, NetOut: 22, Execs: 33, Opens: 44, Refused: 55}, nil
}
func (g *guardian) Rest(_ context.Context, uid uint32, resting func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if resting() {
		g.unbound = append(g.unbound, uid)
	}
	return nil
}
func (g *guardian) Forget(_ context.Context, uid uint32, free func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !free() {
		return xos.Errorf(xos.Conflict, "uid %d is somebody's", uid)
	}
	if g.forget != nil {
		if err := g.forget(uid); err != nil {
			return err
		}
	}
	delete(g.labels, uid)
	return nil
}
func (g *guardian) labelled(uid uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.labels[uid]
}
func (g *guardian) JobCgroup(context.Context, xos.Account, xos.JobID) (string, error) { return "", nil }
func (g *guardian) RemoveJob(context.Context, xos.Account, xos.JobID) error           { return nil }
func (g *guardian) SessionNamespace(context.Context, xos.VOName) (int, error) {
	return -1, xos.Errorf(xos.NotSupported, "a stand-in")
}
func (g *guardian) KillUser(ctx context.Context, ids session.IDs) error {
	if ids.First != 0 {
		if err := new(process.Looks).Kill(ctx, ids); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.killed = append(g.killed, ids.UID)
	return nil
}
func (g *guardian) Freeze(_ context.Context, ids session.IDs, on bool) (string, error) {
	g.mu.Lock()
	busy := g.busy
	g.mu.Unlock()
	if busy != nil {
		<-busy
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen == nil {
		g.frozen = map[uint32]bool{}
	}
	g.frozen[ids.UID] = on
	return "a stand-in", nil
}

func (g *guardian) isFrozen(uid uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frozen[uid]
}
func (g *guardian) Close() error { return nil }

func (g *guardian) hasKilled(uid uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.killed, uid)
}

// mounts stands in for the mounter.
type mounts struct {
	run string
	// begins, if it is set, is told of each mount before it waits for its
	// credential.
	begins func(xos.VolumeID)

	mu sync.Mutex
	at map[xos.VolumeID]string
	n  map[xos.VolumeID]int // how often each was mounted
	// vain is how often one was unmounted that was not mounted.
	vain map[xos.VolumeID]int
	// trouble, if it is set, is what mounting ends with.
	trouble func(context.Context, xos.VolumeID) error
}

// homes is how many are there now.
func (m *mounts) homes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.at)
}

func (m *mounts) count(v xos.VolumeID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n[v]
}

func (m *mounts) Mount(ctx context.Context, v xos.VolumeID, at session.Mapping) error {
	if m.begins != nil {
		m.begins(v)
	}
	if m.trouble != nil {
		return m.trouble(ctx, v)
	}
	for cert := filepath.Join(m.run, "cred", strconv.FormatUint(uint64(at.UID), 10), "cert.pem"); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(cert); err == nil {
			break
		}
		if ctx.Err() != nil {
			return xos.Errorf(xos.Unavailable, "mounting %s takes too long", v)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if info, err := os.Stat(at.Home); err != nil || !info.IsDir() {
		return xos.Errorf(xos.Internal, "no mount point %s", at.Home)
	}
	m.at[v] = at.Home
	m.n[v]++
	return nil
}

// given is how often a volume was unmounted that was not mounted.
func (m *mounts) given(v xos.VolumeID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.vain[v]
}

func (m *mounts) Unmount(_ context.Context, v xos.VolumeID, _ session.Mapping) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.at[v]; !ok {
		m.vain[v]++
	}
	delete(m.at, v)
	return nil
}
func (m *mounts) has(v xos.VolumeID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.at[v]
	return ok
}
