package etcd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/kvtest"
)

// childDir, in the environment, makes the test binary an etcd server.
const childDir = "XOS_TEST_ETCD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serve(dir)
		return
	}
	os.Exit(m.Run())
}

// serve prints its address and runs until standard input ends.
func serve(dir string) {
	cfg := embedConfig(dir, slog.New(slog.DiscardHandler))
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.TickMs, cfg.ElectionMs = 10, 100
	e, err := start(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("http://" + e.etcd.Clients[0].Addr().String())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// killable is a store on a server in a process of its own. Killing it loses
// what the process had in memory, not what the kernel had: a power cut is more.
type killable struct {
	dir     string
	address string
	store   kv.Store
	child   *exec.Cmd
}

func (k *killable) Store() kv.Store { return k.store }

func (k *killable) start(t *testing.T) {
	t.Helper()
	k.child = exec.Command(os.Args[0])
	k.child.Env = append(os.Environ(), childDir+"="+k.dir)
	if _, err := k.child.StdinPipe(); err != nil { // it ends if we do
		t.Fatal(err)
	}
	out, err := k.child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "http://") {
		t.Fatalf("etcd says %q, %v", line, err)
	}
	k.address = strings.TrimSpace(line)
	k.store = k.open(t, "xos/")
}

// open connects to the server, with keys of its own.
func (k *killable) open(t *testing.T, prefix string) kv.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{
		Endpoints: []string{k.address}, Prefix: prefix,
		MaxTxnOps: embeddedTxnOps, MaxRequestBytes: embeddedRequestBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (k *killable) kill(t *testing.T) {
	t.Helper()
	if err := k.child.Process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	_ = k.child.Wait() // it was killed, and says so
}

func (k *killable) Crash(t *testing.T) {
	t.Helper()
	k.kill(t)
	old := k.store
	t.Cleanup(func() {
		if err := old.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	k.start(t)
}

// TestConformanceExternal runs the suite against a server in another process.
func TestConformanceExternal(t *testing.T) {
	k := &killable{dir: t.TempDir()}
	k.start(t)
	defer k.kill(t)
	defer k.store.Close()
	kvtest.Run(t, func(t *testing.T) kv.Store {
		s := k.open(t, t.Name()+"/")
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return s
	})
}

func TestCrash(t *testing.T) {
	k := &killable{dir: t.TempDir()}
	k.start(t)
	defer func() {
		if err := k.store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		k.kill(t)
	}()
	kvtest.RunCrash(t, k, 3)
}

func TestConfig(t *testing.T) {
	for _, endpoints := range [][]string{nil, {"127.0.0.1:2379"}, {"http://core:2379"}, {"https://core:2379"}, {"http://127.0.0.1:1", "http://192.0.2.1:1"}} {
		if _, err := Open(t.Context(), Config{Endpoints: endpoints}); !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: %v", endpoints, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Config{Endpoints: []string{"http://127.0.0.1:1"}}); !xos.Is(err, xos.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}
