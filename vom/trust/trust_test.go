package trust_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/machine"
	"github.com/xtreemos/xos/vom/trust"
	"github.com/xtreemos/xos/vom/vomtest"
)

// core is a core that can be made to lie.
type core struct {
	xosv1connect.MachinesHandler
	lie   atomic.Pointer[xosv1.BundleResponse]
	asked atomic.Int64
}

func (c *core) Bundle(ctx context.Context, req *connect.Request[xosv1.BundleRequest]) (*connect.Response[xosv1.BundleResponse], error) {
	defer c.asked.Add(1)
	if m := c.lie.Load(); m != nil {
		return connect.NewResponse(m), nil
	}
	return c.MachinesHandler.Bundle(ctx, req)
}

type fixture struct {
	*vomtest.Grid
	core *core
	cfg  trust.Config
}

// start has a grid, served, and a machine that has joined it.
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Grid: vomtest.Start(t), core: &core{}}
	address := f.Serve(func(h xosv1connect.MachinesHandler) xosv1connect.MachinesHandler {
		f.core.MachinesHandler = h
		return f.core
	})
	dir := t.TempDir()
	f.cfg = trust.Config{Dir: filepath.Join(dir, "state"), TrustDir: filepath.Join(dir, "trust"), Core: address,
		Publish: true, Poll: 20 * time.Millisecond, Now: f.Now}
	if err := os.Mkdir(f.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) join() {
	f.T.Helper()
	j, err := machine.Join(f.T.Context(), machine.JoinConfig{Core: f.cfg.Core, Token: machine.Token(f.JoinToken(1)), Name: "node1", Service: vom.ServiceNode})
	if err != nil {
		f.T.Fatal(err)
	}
	if err := machine.StoreTrust(f.cfg.TrustDir, j.Trust); err != nil {
		f.T.Fatal(err)
	}
	if err := j.Store(f.cfg.Dir); err != nil {
		f.T.Fatal(err)
	}
}

func (f *fixture) open() *trust.Keeper {
	f.T.Helper()
	k, err := trust.Open(f.cfg)
	if err != nil {
		f.T.Fatal(err)
	}
	return k
}

// run lets the keeper ask for news until stop is called.
func (f *fixture) run(k *trust.Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestNewsArrive(t *testing.T) {
	f := start(t)
	token := f.Member("alice@physics")
	k := f.open()
	if _, err := k.Certificate(); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a machine that has not joined: %v", err)
	}
	if _, err := k.Verifier().X509(nil); err == nil {
		t.Error("it lets somebody in")
	}
	f.join()
	k = f.open()
	var told atomic.Uint64
	k.OnChange(func(b vom.Bundle) { told.Store(b.Epoch) })
	stop := f.run(k)
	wait(t, "the first bundle", func() bool { return told.Load() == f.Records.Bundle().Epoch && k.Reachable() })
	if m, err := k.Machine(); err != nil || m.Node != "node1" {
		t.Errorf("it is %v, %v", m, err)
	}
	_, alice := f.Issue("alice@physics", token)
	chain := credtest.Chain(t, alice)
	if _, err := k.Verifier().X509(chain); err != nil {
		t.Error(err)
	}
	if err := f.Records.RemoveMember(t.Context(), xos.Account{User: "alice", VO: "physics"}, "left", "by root"); err != nil {
		t.Fatal(err)
	}
	k.Refresh()
	wait(t, "the removal", func() bool { _, err := k.Verifier().X509(chain); return xos.Is(err, xos.Permission) })
	stop()
	// On its own, it decides as before, for as long as it may.
	again := f.open()
	if d := cmp.Diff(k.Bundle(), again.Bundle()); d != "" {
		t.Error(d)
	}
	if _, err := again.Verifier().X509(chain); !xos.Is(err, xos.Permission) {
		t.Errorf("after a restart: %v", err)
	}
	f.Pass(25 * time.Hour)
	if _, err := again.Verifier().X509(credtest.Chain(t, alice)); err == nil {
		t.Error("without news for 25 hours")
	}
}

// Nothing that a core says makes a machine forget what it knows.
func TestLies(t *testing.T) {
	f := start(t)
	f.Member("alice@physics")
	f.join()
	k := f.open()
	stop := f.run(k)
	defer stop()
	wait(t, "the first bundle", func() bool { return k.Bundle().Epoch > 0 })
	good := k.Bundle()
	as := func(edit func(*vom.Bundle)) *xosv1.BundleResponse {
		b := good
		edit(&b)
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return &xosv1.BundleResponse{Bundle: data, Epoch: b.Epoch, Issued: timestamppb.New(time.Now().Add(time.Hour))}
	}
	for name, lie := range map[string]*xosv1.BundleResponse{
		"an older epoch":             as(func(b *vom.Bundle) { b.Epoch-- }),
		"no roots":                   as(func(b *vom.Bundle) { b.Epoch++; b.X509Roots = nil }),
		"roots that are none":        as(func(b *vom.Bundle) { b.Epoch++; b.X509Roots = []string{"-----BEGIN CERTIFICATE-----"} }),
		"no JSON":                    {Bundle: []byte("{"), Epoch: good.Epoch + 1, Issued: timestamppb.Now()},
		"fresh, of an epoch unknown": {Epoch: good.Epoch + 1, Issued: timestamppb.New(time.Now().Add(time.Hour))},
		"fresh, but no time":         {Epoch: good.Epoch},
		"fresh, at no time":          {Epoch: good.Epoch, Issued: &timestamppb.Timestamp{Seconds: 1 << 60}},
	} {
		f.core.lie.Store(lie)
		before := f.core.asked.Load()
		k.Refresh()
		wait(t, "an answer", func() bool { return f.core.asked.Load() >= before+2 && !k.Reachable() })
		got := k.Bundle()
		got.Issued = good.Issued
		if d := cmp.Diff(good, got); d != "" || k.Bundle().Issued.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s: believed: %s", name, d)
		}
		f.core.lie.Store(nil)
		wait(t, "the truth", k.Reachable)
	}
}

// What a crash or a full disk left half done is done when the core answers
// next, though there are no news.
func TestKeysAreWrittenInTheEnd(t *testing.T) {
	f := start(t)
	f.join()
	k := f.open()
	stop := f.run(k)
	wait(t, "the first bundle", func() bool { return k.Bundle().Epoch > 0 })
	stop()
	files := []string{"roots.pem", "ssh_user_ca.pub", "known_hosts"}
	want := map[string]string{}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(f.cfg.TrustDir, name))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = string(data)
	}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(f.cfg.TrustDir, name), []byte("old\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k = f.open()
	defer f.run(k)()
	for _, name := range files {
		wait(t, name+" as it should be", func() bool {
			data, err := os.ReadFile(filepath.Join(f.cfg.TrustDir, name))
			return err == nil && string(data) == want[name]
		})
	}
}

// The certificate is renewed in time, on the same key, and used at once.
func TestRenewal(t *testing.T) {
	f := start(t)
	f.join()
	k := f.open()
	defer f.run(k)()
	wait(t, "the first bundle", func() bool { return k.Bundle().Epoch > 0 })
	old, err := k.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(f.cfg.Dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	f.Pass(15 * 24 * time.Hour)
	before := f.core.asked.Load()
	wait(t, "two rounds", func() bool { return f.core.asked.Load() >= before+2 })
	if c, _ := k.Certificate(); c.Leaf.SerialNumber.Cmp(old.Leaf.SerialNumber) != 0 {
		t.Error("renewed with half its life left")
	}
	f.Pass(6 * 24 * time.Hour)
	wait(t, "the renewal", func() bool {
		c, err := k.Certificate()
		return err == nil && c.Leaf.SerialNumber.Cmp(old.Leaf.SerialNumber) != 0
	})
	if now, err := os.ReadFile(filepath.Join(f.cfg.Dir, "key.pem")); err != nil || string(now) != string(key) {
		t.Errorf("the key was changed: %v", err)
	}
	if again := f.open(); again == nil {
		t.Error("what is on disk does not open")
	}
}

func TestDamagedState(t *testing.T) {
	f := start(t)
	f.join()
	put := func(name, text string) func() {
		path := filepath.Join(f.cfg.Dir, name)
		old, err := os.ReadFile(path)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			os.Remove(path)
			if err == nil {
				os.WriteFile(path, old, 0o600)
			}
		}
	}
	other, err := os.ReadFile(filepath.Join(f.cfg.Dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file, text string
		want       xos.Kind
	}{
		{"bundle.json", "{", xos.Internal},
		{"bundle.json", "", xos.Internal},
		{"cert.pem", "", xos.Invalid},
		{"key.pem", "", xos.Invalid},
		{"key.pem", strings.ToLower(string(other)), xos.Invalid},
	} {
		undo := put(tt.file, tt.text)
		_, err := trust.Open(f.cfg)
		if !xos.Is(err, tt.want) {
			t.Errorf("%s with %.20q: %v, want %v", tt.file, tt.text, err, tt.want)
		}
		undo()
	}
	f.open()
}

// TestSaysWhatIsInForce: each question for news says it, as it is then.
func TestSaysWhatIsInForce(t *testing.T) {
	f := start(t)
	f.Member("alice@physics")
	f.join()
	k := f.open()
	var epoch atomic.Uint64
	k.Say(func() *xosv1.InForce { return &xosv1.InForce{Epoch: epoch.Load(), Vos: []string{"physics"}} })
	defer f.run(k)()
	inForce := func() (said, has bool) {
		_, nodes, err := f.Records.IsolationInForce(t.Context(), "physics")
		if err != nil {
			t.Fatal(err)
		}
		return len(nodes) == 1 && nodes[0].Node == "node1", len(nodes) == 1 && nodes[0].InForce
	}
	wait(t, "it says that nothing is", func() bool { said, has := inForce(); return said && !has })
	epoch.Store(f.Records.Bundle().Epoch)
	wait(t, "it says that the news are", func() bool { _, has := inForce(); return has })
}
