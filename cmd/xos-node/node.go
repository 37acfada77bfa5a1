package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/execution"
	"github.com/xtreemos/xos/aem/job"
	"github.com/xtreemos/xos/aem/resource"
	"github.com/xtreemos/xos/aem/usage"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/nats"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/mount"
	"github.com/xtreemos/xos/session/service"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/srds/overlay"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/auditor"
	"github.com/xtreemos/xos/vom/trust"
)

// What is certified anew with the machine, for sshd.
const (
	hostKey  = "/etc/ssh/ssh_host_ed25519_key.pub"
	hostCert = "/etc/ssh/ssh_host_ed25519_key-cert.pub"
)

// run serves until ctx ends.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return xos.Errorf(xos.Internal, "making %s: %w", cfg.State, err)
	}
	key := hostKey
	if _, err := os.Stat(hostCert); err != nil {
		key = "" // sshd shows no certificate of the grid's here
	}
	keeper, err := trust.Open(trust.Config{Dir: cfg.State, Core: cfg.Core, TrustDir: cfg.Trust, Publish: true, Offline: cfg.Offline.Duration,
		HostKey: key, HostCert: hostCert, Log: log})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return keeper.Run(ctx) })
	group.Go(func() error { return node(ctx, cfg, keeper, log) })
	return group.Wait()
}

// joined waits until the machine has a certificate, and gives its name.
func joined(ctx context.Context, cfg config, keeper *trust.Keeper, log *slog.Logger) (xos.NodeID, error) {
	told := false
	for {
		m, err := keeper.Machine()
		switch {
		case err == nil && cfg.Name != "" && cfg.Name != string(m.Node):
			return "", xos.Errorf(xos.Invalid, "name = %q, but this machine joined as %s", cfg.Name, m.Node)
		case err == nil:
			return m.Node, nil
		case !xos.Is(err, xos.Unavailable):
			return "", err
		}
		if !told {
			told = true
			log.Info("waiting to join a grid", "how", "xos up --join CORE --token TOKEN")
			daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=waiting to join a grid")
		}
		select {
		case <-ctx.Done():
			return "", nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// node wires the services and serves until ctx ends.
func node(ctx context.Context, cfg config, keeper *trust.Keeper, log *slog.Logger) error {
	name, err := joined(ctx, cfg, keeper, log)
	if err != nil || name == "" {
		return err
	}
	var told *audit.Journal
	if cfg.AuditJournal && journal.Enabled() {
		told = audit.NewJournal(journal.Send, log)
	}
	decisions, err := audit.Open(filepath.Join(cfg.State, "audit.log"), audit.Keep(cfg.AuditKeep.Duration), audit.To(told))
	if err != nil {
		return err
	}
	history := audit.Bound(decisions, originOf)
	defer history.Close()
	pool, err := account.ParsePool(cfg.SubIDs)
	if err != nil {
		return err
	}
	accounts, err := account.Open(account.Config{Dir: cfg.State, Etc: "/etc", SiteKey: cfg.SiteKey, Quarantine: cfg.Quarantine.Duration, SubIDs: pool}, time.Now)
	if err != nil {
		return err
	}
	defer accounts.Close()
	ofVO, ofAccount, err := cfg.ceilings()
	if err != nil {
		return err
	}
	fence, err := guard.New(guard.Config{Run: cfg.Run, Homes: cfg.Homes, JobCeilings: ofVO, LoginCeilings: ofAccount}, log)
	if err != nil {
		return err
	}
	defer fence.Close()
	policies := newPolicies(cfg, keeper.Bundle, fence, log)
	if err := policies.apply(); err != nil {
		log.Error("VOs' policies of isolation are not in force: what was in force stays", "error", err)
	}
	isolation := func() string { level, _ := fence.Level(); return string(level) }
	decider, err := cfg.decider(keeper.Bundle, isolation)
	if err != nil {
		return err
	}
	core := rpc.TLSClient(keeper.CoreTLS())
	credentials := xosv1connect.NewCredentialsClient(core, "https://"+cfg.Core, rpc.ClientOptions()...)

	ledger, err := openLedger(cfg, log)
	if err != nil {
		return err
	}
	stays := openStays(name, ledger, fence, accounts, log)
	var exec atomic.Pointer[execution.Execution]
	jobs := func() int {
		if e := exec.Load(); e != nil {
			return e.Count()
		}
		return 0
	}
	sessions, err := service.New(service.Config{Node: name, Run: cfg.Run, Homes: cfg.Homes, Shell: cfg.Shell, Linger: cfg.Linger.Duration, Idle: cfg.Idle.Duration},
		service.Deps{Verifier: keeper.Verifier(), Bundle: keeper.Bundle, Policy: decider, Accounts: accounts, Guard: fence,
			Mounter:     mount.Units{Run: cfg.Run, Core: cfg.Core, Roots: filepath.Join(cfg.Trust, "roots.pem")},
			Credentials: credentials, Audit: history, Stays: stays, Reachable: keeper.Reachable, Jobs: jobs, Search: cfg.search(fence), Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	defer sessions.Close()
	_, features := fence.Level()
	for _, f := range guard.Unbound(ofVO, ofAccount, features) {
		log.Warn("ceilings of node.toml are not in force", "missing", f.Name, "why", f.Why)
	}
	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "listening: %w", err)
	}
	shim, local, err := listen(cfg.Run)
	if err != nil {
		tcp.Close()
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return wire.Serve(ctx, shim, sessions, log) })
	group.Go(func() error { return told.Run(ctx) })
	group.Go(func() error { return history.Run(ctx) })
	group.Go(func() error { return sessions.Run(ctx) })
	group.Go(func() error { return stays.Run(ctx) })
	group.Go(func() error {
		return ledger.Run(ctx, xosv1connect.NewUsageClient(core, "https://"+cfg.Core, rpc.ClientOptions()...))
	})
	keeper.OnChange(sessions.Changed)
	group.Go(func() error {
		return serveJobs(ctx, cfg, jobDeps{name: name, keeper: keeper, sessions: sessions, tcp: tcp, local: local, log: log, started: exec.Store,
			decisions: ownLog{auditor.New(history, keeper.Verifier(), log)},
			exec: execution.Deps{Verifier: keeper.Verifier(), Decider: decider, Sessions: sessions, Guard: fence, Meter: fence, Usage: ledger, Credentials: credentials,
				Directory: xosv1connect.NewJobDirectoryClient(core, "https://"+cfg.Core, rpc.ClientOptions()...), Audit: history, Now: time.Now, Log: log},
			guard:     fence,
			used:      localUsage(ledger, sessions, keeper.Verifier(), cfg.Core),
			isolation: isolation})
	})
	keeper.OnChange(policies.changed)
	keeper.Say(policies.inForce)
	group.Go(func() error { return policies.run(ctx) })
	group.Go(func() error { return watchdog(ctx, sessions) })
	// What the kernel refuses has bounds of its own.
	group.Go(func() error { return fence.Run(ctx, decisions, accounts.UserOf) })
	level, _ := fence.Level()
	log.Info("serving", "name", name, "core", cfg.Core, "isolation", level, "version", version)
	daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=serving as "+string(name))
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	return group.Wait()
}

// jobDeps is what the part for jobs needs of the rest.
type jobDeps struct {
	name      xos.NodeID
	keeper    *trust.Keeper
	sessions  *service.Service
	exec      execution.Deps
	started   func(*execution.Execution)
	isolation func() string
	guard     *guard.Guard
	used      usage.Local
	decisions ownLog
	tcp       net.Listener
	local     net.Listener
	log       *slog.Logger
}

// serveJobs runs, manages and finds jobs: for other machines on tcp, for this
// one's users on the session socket, with the sessions' own calls.
func serveJobs(ctx context.Context, cfg config, d jobDeps) error {
	messages, err := nats.Connect(ctx, nats.Config{Servers: []string{cfg.Bus}, Name: string(d.name) + "/" + string(vom.ServiceNode),
		TLS: d.keeper.CoreTLS(), Log: d.log})
	if err != nil {
		return err
	}
	defer messages.Close()
	news, err := messages.Subscribe("xos.bundle", func(context.Context, bus.Message) { d.keeper.Refresh() })
	if err != nil {
		return err
	}
	defer news()
	resources, err := overlay.New(overlay.Config{}, messages, d.log)
	if err != nil {
		return err
	}
	defer resources.Close()
	units, err := execution.New(execution.Config{Node: d.name, Dir: filepath.Join(cfg.Run, "jobs"), Supervisor: cfg.Supervisor, Homes: cfg.Homes, Runtime: cfg.Run}, d.exec)
	if err != nil {
		return err
	}
	defer units.Close()
	d.started(units)
	address, err := advertised(cfg, d.tcp.Addr())
	if err != nil {
		return err
	}
	manager, err := job.New(job.Config{Node: d.name, Dir: filepath.Join(cfg.State, "jobs")}, job.Deps{Verifier: d.keeper.Verifier(), Sessions: d.sessions,
		Resources: resources, Machine: d.keeper.Certificate, Core: func() string { return cfg.Core }, Now: time.Now, Log: d.log})
	if err != nil {
		return err
	}
	defer manager.Close()
	here := resource.New(resource.Config{Node: d.name, Address: address, VOs: cfg.VOs}, resource.Live{Jobs: units.Count, Isolation: d.isolation})

	opts := rpc.ServerOptions(d.log)
	remote, local := http.NewServeMux(), http.NewServeMux()
	remote.Handle(xosv1connect.NewExecutionHandler(units, opts...))
	local.Handle(xosv1connect.NewSessionHandler(d.sessions, opts...))
	local.Handle(xosv1connect.NewUIDsHandler(d.sessions, opts...))
	local.Handle(xosv1connect.NewDelegationHandler(d.sessions, opts...))
	local.Handle(xosv1connect.NewJobsHandler(manager, opts...))
	local.Handle(xosv1connect.NewGuardHandler(d.guard, opts...))
	local.Handle(xosv1connect.NewAuditHandler(d.decisions, opts...))
	local.Handle(xosv1connect.NewUsageHandler(d.used, opts...))
	group, ctx := errgroup.WithContext(ctx)
	// A job that may finish is attended to: what begins one is verified for itself.
	peers := d.keeper.Verifier().RunningConnections()
	d.keeper.OnChange(func(vom.Bundle) { peers.Recheck() })
	group.Go(func() error { return peers.Run(ctx) })
	group.Go(func() error {
		cfg := d.keeper.Verifier().RunningServerTLS(d.keeper.Certificate)
		cfg.NextProtos = rpc.NextProtos()
		l, cfg := peers.Watch(d.tcp, cfg)
		return rpc.ServeTLS(ctx, l, cfg, remote)
	})
	group.Go(func() error { return rpc.Serve(ctx, d.local, local) })
	if cfg.Metrics != "" {
		group.Go(func() error {
			if err := rpc.ServeUnix(ctx, cfg.Metrics, 0o600, d.guard.Metrics()); err != nil {
				d.log.Error("figures are not told", "socket", cfg.Metrics, "error", err)
			}
			return nil // logins and jobs go on without
		})
	}
	group.Go(func() error { return units.Run(ctx) })
	group.Go(func() error { return manager.Run(ctx) })
	group.Go(func() error { return resources.Answer(ctx, here.Describe) })
	group.Go(func() error { return afterGaps(ctx, messages, d.keeper, hurry) })
	return group.Wait()
}

// watchdog tells the service manager that the session service is not stuck.
func watchdog(ctx context.Context, sessions *service.Service) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			sessions.Alive()
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}
