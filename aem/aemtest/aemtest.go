// Package aemtest gives tests a small grid for jobs: a core with the job
// directory, and machines that run real job units, all on loopback over mutual
// TLS. Only the session service and the guard are stand-ins.
package aemtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/directory"
	"github.com/xtreemos/xos/aem/execution"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// Grid is the core.
type Grid struct {
	T         testing.TB
	CA        *credtest.Authority
	Directory *directory.Directory

	mu    sync.Mutex
	core  string // host:port
	stop  func()
	atEnd []func()
}

// AtEnd is t.Cleanup for what takes its time to stop: all stop at once.
func (g *Grid) AtEnd(f func()) { g.atEnd = append(g.atEnd, f) }

// New starts a core; the test must be root's.
func New(t testing.TB) *Grid {
	need.Root(t)
	t.TempDir() // the first one says when all go: after what runs in them
	store, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	ca := credtest.New(t)
	g := &Grid{T: t, CA: ca, core: "127.0.0.1:0",
		Directory: directory.New(directory.Config{}, store, ca.Verifier(), time.Now, quiet())}
	g.StartCore()
	g.AtEnd(g.StopCore)
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, f := range g.atEnd {
			all.Go(f)
		}
		all.Wait()
	})
	return g
}

// supervisor is the xos-job that Main built.
var supervisor string

// Main is for TestMain: it builds xos-job, runs the tests and gives the status
// to exit with.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "xos-job")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	supervisor = filepath.Join(dir, "xos-job")
	if out, err := exec.Command("go", "build", "-o", supervisor, "github.com/xtreemos/xos/cmd/xos-job").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building xos-job: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// StartCore starts the core again after StopCore, at the same address.
func (g *Grid) StartCore() {
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewJobDirectoryHandler(g.Directory, rpc.ServerOptions(quiet())...))
	mux.Handle(xosv1connect.NewUsageHandler(g.Directory, rpc.ServerOptions(quiet())...))
	mux.Handle(xosv1connect.NewCredentialsHandler(delegator{g: g}, rpc.ServerOptions(quiet())...))
	addr, stop := g.serve(g.CoreAddress(), g.CA.Machine("core", vom.ServiceCore), false, mux)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.core, g.stop = addr, stop
}

// CoreAddress is host:port.
func (g *Grid) CoreAddress() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.core
}

// StopCore makes the core unreachable.
func (g *Grid) StopCore() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil {
		g.stop()
		g.stop = nil
	}
}

// serve serves on an address until stop.
func (g *Grid) serve(addr string, cert tls.Certificate, required bool, h http.Handler) (string, func()) {
	g.T.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		g.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rpc.ServeTLS(ctx, l, g.CA.Verifier().ServerTLS(credtest.Show(cert), required), h); err != nil {
			g.T.Error(err)
		}
	}()
	return l.Addr().String(), func() { cancel(); <-done }
}

// delegator answers Delegate as the core would.
type delegator struct {
	xosv1connect.UnimplementedCredentialsHandler
	g *Grid
}

func (d delegator) Delegate(ctx context.Context, req *connect.Request[xosv1.DelegateRequest]) (*connect.Response[xosv1.DelegateResponse], error) {
	m, err := d.g.CA.Verifier().Machine(rpc.PeerFrom(ctx).Chain)
	if err != nil {
		return nil, err
	}
	account, err := accountOf(req.Msg.Order)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&xosv1.DelegateResponse{X509Chain: d.g.CA.Delegated(account, m.Node).Certificate}), nil
}

// Node is a machine that runs jobs.
type Node struct {
	G        *Grid
	Name     xos.NodeID
	Address  string
	Machine  tls.Certificate
	Sessions *Sessions
	Guard    *Guard
	Refuse   string // why policy refuses; "" for not
	Exec     *execution.Execution
	Ledger   *usage.Ledger

	dir  string
	stop func()
	mu   sync.Mutex // of Exec, for Running
}

// Running is the number of units, for any goroutine.
func (n *Node) Running() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Exec.Count()
}

// Node starts a machine.
func (g *Grid) Node(name xos.NodeID) *Node {
	g.T.Helper()
	dir, err := os.MkdirTemp("", "xosn")
	if err != nil {
		g.T.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	n := &Node{G: g, Name: name, Address: "127.0.0.1:0", Machine: g.CA.Machine(name, vom.ServiceNode), dir: dir}
	n.Sessions = &Sessions{ca: g.CA, node: name, homes: filepath.Join(dir, "homes"), revoked: make(chan session.Sentence, 8), admitted: map[xos.Account]int{}}
	n.Guard = newGuard(g.T)
	n.Start()
	g.AtEnd(func() { n.Kill(); n.endUnits(); os.RemoveAll(dir) })
	return n
}

// Start starts the node service, anew after Kill.
func (n *Node) Start() {
	n.G.T.Helper()
	core := rpc.TLSClient(n.G.CA.Verifier().ClientTLS(credtest.Show(n.Machine), vom.ServiceCore))
	used, err := usage.OpenLedger(filepath.Join(n.dir, "usage"), 0, time.Now, quiet())
	if err != nil {
		n.G.T.Fatal(err)
	}
	exec, err := execution.New(execution.Config{Node: n.Name, Dir: filepath.Join(n.dir, "jobs"), Supervisor: supervisor,
		Homes: n.Sessions.homes, Runtime: filepath.Join(n.dir, "none"), Sync: 100 * time.Millisecond, Measure: 100 * time.Millisecond},
		execution.Deps{Verifier: n.G.CA.Verifier(), Decider: n, Sessions: n.Sessions, Guard: n.Guard, Meter: n.Guard, Usage: used,
			Credentials: xosv1connect.NewCredentialsClient(core, "https://"+n.G.CoreAddress(), rpc.ClientOptions()...),
			Directory:   xosv1connect.NewJobDirectoryClient(core, "https://"+n.G.CoreAddress(), rpc.ClientOptions()...),
			Audit:       ledger{}, Now: time.Now, Log: slog.New(slog.NewTextHandler(n.G.T.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		n.G.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { exec.Run(ctx) })
	work.Go(func() {
		used.Run(ctx, xosv1connect.NewUsageClient(core, "https://"+n.G.CoreAddress(), rpc.ClientOptions()...))
	})
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewExecutionHandler(exec, rpc.ServerOptions(quiet())...))
	addr, stop := n.G.serve(n.Address, n.Machine, true, mux)
	n.mu.Lock()
	n.Exec, n.Ledger, n.Address = exec, used, addr
	n.mu.Unlock()
	n.stop = func() { cancel(); stop(); exec.Close(); work.Wait() }
}

// Kill ends the node service; its units go on.
func (n *Node) Kill() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// Units is the directory of the units.
func (n *Node) Units() string { return filepath.Join(n.dir, "jobs") }

// Execution gives a client with some certificate.
func (n *Node) Execution(cert tls.Certificate) xosv1connect.ExecutionClient {
	return xosv1connect.NewExecutionClient(rpc.TLSClient(n.G.CA.Verifier().ClientTLSTo(credtest.Show(cert), vom.ServiceNode, n.Name)),
		"https://"+n.Address, rpc.ClientOptions()...)
}

// Decide implements vom.Decider.
func (n *Node) Decide(_ context.Context, who vom.Identity, _ vom.Action, _ xos.NodeID) vom.Decision {
	if n.Refuse != "" {
		return vom.Decision{Reason: n.Refuse}
	}
	return vom.Decision{Allow: true, Reason: "a member"}
}

// ledger takes audit records and forgets them.
type ledger struct{}

func (ledger) Append(context.Context, audit.Record) error { return nil }
