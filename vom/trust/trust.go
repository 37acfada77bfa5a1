// Package trust keeps a machine's bundle: what it needs to decide by itself.
// It reads the last one from disk, asks the core for news, and keeps the
// machine's own certificate valid.
package trust

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/machine"
)

// Config says where a machine's state is.
type Config struct {
	// Dir holds cert.pem and key.pem, put there when the machine joined, and
	// bundle.json.
	Dir string
	// Core is host:port of the core's API.
	Core string
	// TrustDir is where roots.pem is, and where the keys for sshd and ssh are
	// kept up to date if Publish is set.
	TrustDir string
	Publish  bool
	// HostKey is sshd's public host key, certified anew with the machine;
	// "" for none. HostCert is where its certificate goes.
	HostKey, HostCert string
	// Offline bounds how long this machine decides without news, where that is
	// less than the core and the VOs allow; 0: as long as they do.
	Offline time.Duration
	// Poll is how often news are asked for; 10 s.
	Poll time.Duration
	Now  func() time.Time // time.Now
	Log  *slog.Logger     // discards
}

// Keeper keeps the bundle. It is safe for concurrent use.
type Keeper struct {
	cfg      Config
	verifier *credential.Verifier
	bundle   atomic.Pointer[vom.Bundle]
	cert     atomic.Pointer[tls.Certificate]
	// published is the epoch of the keys in TrustDir, 0 if it is not known, and
	// listed which revocation list is there. Only Run's goroutine uses them.
	published uint64
	listed    string
	// stale are the VOs of which was told that they are not served any more for
	// lack of news. Only Run's goroutine uses it.
	stale   map[xos.VOName]bool
	reached atomic.Bool
	kick    chan struct{}

	mu        sync.Mutex
	listeners []func(vom.Bundle)
	inForce   func() *xosv1.InForce
}

// Open reads what is on disk. A machine that has not joined yet has an empty
// bundle, by which nobody is let in; Run waits for its certificate.
func Open(cfg Config) (*Keeper, error) {
	if cfg.Poll == 0 {
		cfg.Poll = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, kick: make(chan struct{}, 1)}
	k.bundle.Store(&vom.Bundle{})
	k.verifier = credential.NewVerifier(k.Bundle, cfg.Now)
	data, err := os.ReadFile(k.path("bundle.json"))
	if err != nil && !os.IsNotExist(err) {
		return nil, xos.Errorf(xos.Internal, "reading the bundle: %w", err)
	}
	if err == nil {
		var b vom.Bundle
		if err := json.Unmarshal(data, &b); err != nil {
			return nil, xos.Errorf(xos.Internal, "the bundle on disk is malformed: %w", err).WithHint("remove %s and restart", k.path("bundle.json"))
		}
		k.bundle.Store(&b)
	}
	if err := k.loadCertificate(); err != nil {
		return nil, err
	}
	k.list(*k.bundle.Load())
	return k, nil
}

func (k *Keeper) path(name string) string { return filepath.Join(k.cfg.Dir, name) }

// Bundle gives the latest bundle. It must not be changed.
func (k *Keeper) Bundle() vom.Bundle {
	b := *k.bundle.Load()
	if k.cfg.Offline > 0 {
		b.Offline = min(b.Offline, k.cfg.Offline)
	}
	return b
}

// Verifier verifies by the latest bundle.
func (k *Keeper) Verifier() *credential.Verifier { return k.verifier }

// Reachable reports whether the core answered when it was last asked.
func (k *Keeper) Reachable() bool { return k.reached.Load() }

// Certificate gives the machine's certificate; xos.Unavailable before it has
// joined.
func (k *Keeper) Certificate() (*tls.Certificate, error) {
	if c := k.cert.Load(); c != nil {
		return c, nil
	}
	return nil, xos.Errorf(xos.Unavailable, "this machine has not joined a grid").WithHint("xos up --join CORE --token TOKEN")
}

// Machine gives who this machine is; see Certificate.
func (k *Keeper) Machine() (vom.Machine, error) {
	c, err := k.Certificate()
	if err != nil {
		return vom.Machine{}, err
	}
	return credential.MachineFromX509(c.Leaf)
}

// CoreTLS is the client configuration towards the core, as this machine.
func (k *Keeper) CoreTLS() *tls.Config {
	return k.verifier.ClientTLS(k.Certificate, vom.ServiceCore)
}

// OnChange has f called with every new bundle, the present one first.
func (k *Keeper) OnChange(f func(vom.Bundle)) {
	k.mu.Lock()
	k.listeners = append(k.listeners, f)
	k.mu.Unlock()
	f(k.Bundle())
}

// Say has the core told, each time that news are asked for, which policies are in
// force here.
func (k *Keeper) Say(inForce func() *xosv1.InForce) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inForce = inForce
}

// said is what Say was given, now.
func (k *Keeper) said() *xosv1.InForce {
	k.mu.Lock()
	f := k.inForce
	k.mu.Unlock()
	if f == nil {
		return nil
	}
	return f()
}

// Refresh has the core asked for news at once.
func (k *Keeper) Refresh() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// loadCertificate reads the certificate, if there is one.
func (k *Keeper) loadCertificate() error {
	pair, err := tls.LoadX509KeyPair(k.path("cert.pem"), k.path("key.pem"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return xos.Errorf(xos.Invalid, "reading the machine's certificate in %s: %w", k.cfg.Dir, err).WithHint("join again: xos up --join CORE --token TOKEN")
	}
	k.cert.Store(&pair)
	if len(k.Bundle().X509Roots) > 0 {
		return nil
	}
	// The first bundle is fetched from the core of the root accepted when
	// joining.
	data, err := os.ReadFile(filepath.Join(k.cfg.TrustDir, "roots.pem"))
	if err != nil {
		return xos.Errorf(xos.Invalid, "reading the grid's root: %w", err)
	}
	k.bundle.Store(&vom.Bundle{X509Roots: []string{string(data)}})
	return nil
}

// Run asks for news until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Poll)
	defer tick.Stop()
	join := time.NewTicker(time.Second)
	defer join.Stop()
	client := xosv1connect.NewMachinesClient(rpc.TLSClient(k.CoreTLS()), "https://"+k.cfg.Core, rpc.ClientOptions()...)
	for {
		if k.cert.Load() != nil {
			k.update(ctx, client)
			k.tellStale()
			k.renew(ctx, client)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-tick.C:
		case <-join.C:
			for k.cert.Load() == nil && ctx.Err() == nil {
				if err := k.loadCertificate(); err != nil {
					k.cfg.Log.Warn("waiting for the machine's certificate", "error", err)
				}
				if k.cert.Load() == nil {
					select {
					case <-ctx.Done():
					case <-join.C:
					}
				}
			}
			if k.bundle.Load().Epoch > 0 {
				join.Stop() // joined, and with a bundle: the slow tick will do
			}
		}
	}
}

// update asks for a newer bundle, or for the word that there is none.
func (k *Keeper) update(ctx context.Context, client xosv1connect.MachinesClient) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	old := *k.bundle.Load()
	resp, err := client.Bundle(ctx, connect.NewRequest(&xosv1.BundleRequest{Epoch: old.Epoch, InForce: k.said()}))
	if err == nil {
		err = k.take(old, resp.Msg)
	}
	if was := k.reached.Swap(err == nil); was != (err == nil) {
		if err != nil {
			k.cfg.Log.Warn("the core cannot be reached; deciding by the last bundle", "issued", old.Issued, "until", old.Issued.Add(k.Bundle().Offline), "error", err)
		} else {
			k.cfg.Log.Info("the core answers", "epoch", k.Bundle().Epoch)
		}
	}
}

func (k *Keeper) take(old vom.Bundle, m *xosv1.BundleResponse) error {
	b := old
	if len(m.Bundle) > 0 {
		b = vom.Bundle{}
		if err := json.Unmarshal(m.Bundle, &b); err != nil {
			return xos.Errorf(xos.Internal, "the core's bundle is malformed: %w", err)
		}
		// A core restored from a backup may not take revocations back.
		if b.Epoch < old.Epoch {
			return xos.Errorf(xos.Conflict, "the core's bundle has epoch %d, older than %d here", b.Epoch, old.Epoch)
		}
		// Without roots no news would ever be believed again.
		if err := machine.CheckRoots(b.X509Roots); err != nil {
			return err
		}
	} else if m.Epoch != old.Epoch {
		return xos.Errorf(xos.Conflict, "the core vouches for epoch %d, but %d is here", m.Epoch, old.Epoch)
	}
	if err := m.Issued.CheckValid(); err != nil {
		return xos.Errorf(xos.Invalid, "the core does not say when it vouched for the bundle: %v", err)
	}
	b.Issued = m.Issued.AsTime()
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := machine.ReplaceFile(k.path("bundle.json"), data, 0o600); err != nil {
		return xos.Errorf(xos.Internal, "keeping the bundle: %w", err)
	}
	k.bundle.Store(&b)
	k.list(b)
	if err := k.publish(b); err != nil {
		k.cfg.Log.Warn("cannot write the grid's keys for sshd and ssh", "error", err)
	}
	if b.Epoch == old.Epoch {
		return nil
	}
	k.mu.Lock()
	listeners := append([]func(vom.Bundle){}, k.listeners...)
	k.mu.Unlock()
	for _, f := range listeners {
		f(k.Bundle())
	}
	return nil
}
