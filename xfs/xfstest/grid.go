package xfstest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/osd"
)

// Grid is a file system whose services and mounts are processes, which may be
// killed, with a network between them that may be disturbed. The test
// program's TestMain must be Main.
type Grid struct {
	t         testing.TB
	dir       string
	capacity  int64
	Authority *credtest.Authority
	MRC, OSD  *Process
	// ToMRC and ToOSD are the ways that mounts take.
	ToMRC, ToOSD *Proxy
}

// StartGrid starts the services; capacity bounds the storage (0: the disk).
func StartGrid(t testing.TB, capacity int64) *Grid {
	t.Helper()
	need.Root(t)
	need.File(t, "/dev/fuse")
	g := &Grid{t: t, dir: t.TempDir(), capacity: capacity, Authority: credtest.New(t)}
	g.write("bundle", g.Authority.Bundle())
	g.certify("core", g.Authority.Machine("core", vom.ServiceCore))
	g.certify("storage", g.Authority.Machine("storage", vom.ServiceStorage))
	store, err := osd.Open(g.OSDDir(), 0) // gives it its name
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	g.OSD = g.process(role{Kind: "osd", Name: "storage", Capacity: capacity})
	g.OSD.Start()
	g.ToOSD = NewProxy(t, g.OSD.role.Listen)
	g.MRC = g.process(role{Kind: "mrc", Name: "core", OSD: g.ToOSD.Address()})
	g.MRC.Start()
	g.ToMRC = NewProxy(t, g.MRC.role.Listen)
	return g
}

// OSDDir is where the storage keeps its data.
func (g *Grid) OSDDir() string { return filepath.Join(g.dir, "osd") }

func (g *Grid) write(name string, v any) {
	g.t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(filepath.Join(g.dir, name), data, 0o600)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *Grid) certify(name string, c tls.Certificate) {
	g.t.Helper()
	g.write("cert-"+name, c.Certificate)
	key := c.PrivateKey.(ed25519.PrivateKey)
	if err := os.WriteFile(filepath.Join(g.dir, "key-"+name), key.Seed(), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func privateKey(seed []byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seed) }

// Mount mounts alice's volume as one machine does.
func (g *Grid) Mount(node xos.NodeID, cfg client.Config) *Process {
	g.t.Helper()
	g.certify(string(node), g.Authority.Delegated("alice@physics", node))
	p := g.process(role{Kind: "mount", Name: string(node), MRC: g.ToMRC.Address(), Mountpoint: g.t.TempDir(), Config: cfg})
	p.Start()
	return p
}

// Remote reaches a volume directly, as an account on a machine.
func (g *Grid) Remote(account string, node xos.NodeID, volume xos.VolumeID) client.Deps {
	v, cert := g.Authority.Verifier(), credtest.Show(g.Authority.Delegated(account, node))
	return client.Remote{MRC: g.MRC.role.Listen, Volume: volume, Log: slog.New(slog.DiscardHandler),
		TLSMRC: v.ClientTLS(cert, vom.ServiceCore), TLSStorage: v.ClientTLS(cert, vom.ServiceStorage)}.Deps()
}

// Process is one process of a Grid.
type Process struct {
	t    testing.TB
	role role
	dir  string
	cmd  *exec.Cmd
	in   io.Closer
	log  output
}

func (g *Grid) process(r role) *Process {
	r.Dir, r.Listen = g.dir, "127.0.0.1:0"
	p := &Process{t: g.t, role: r, dir: r.Mountpoint}
	g.t.Cleanup(func() {
		p.Kill()
		if g.t.Failed() {
			g.t.Logf("%s %s:\n%s", r.Kind, r.Name, p.Log())
		}
	})
	return p
}

// Dir is a mount's directory.
func (p *Process) Dir() string { return p.dir }

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is what the process has logged, in all its lives.
func (p *Process) Log() string { return p.log.String() }

// Start starts it, again at the address that it had before.
func (p *Process) Start() {
	p.t.Helper()
	text, err := json.Marshal(p.role)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	p.cmd.Stderr = &p.log
	in, err := p.cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.in = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		p.Kill()
		p.t.Fatalf("the %s did not start: %v\n%s", p.role.Kind, err, p.Log())
	}
	if p.role.Kind != "mount" {
		p.role.Listen = address
	}
}

// Kill kills it, as with kill -9; a mount's directory is freed.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.end()
}

// Stop ends it in good order and gives how it ended.
func (p *Process) Stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	watchdog := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	defer watchdog.Stop()
	return p.end()
}

func (p *Process) end() error {
	err := p.cmd.Wait()
	p.in.Close()
	p.cmd = nil
	if p.dir != "" {
		syscall.Unmount(p.dir, syscall.MNT_DETACH)
	}
	return err
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Dial connects to the storage as any holder of a certificate can.
func (g *Grid) Dial(cert tls.Certificate) frame.Dial {
	cfg := g.Authority.Verifier().ClientTLS(credtest.Show(cert), vom.ServiceStorage)
	return dialTLS(cfg, g.OSD.role.Listen)
}

func dialTLS(cfg *tls.Config, address string) frame.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	}
}
