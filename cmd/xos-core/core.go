package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/nats"
	"github.com/xtreemos/xos/infra/bus/natsd"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/etcd"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/auditor"
	"github.com/xtreemos/xos/vom/authority"
	"github.com/xtreemos/xos/vom/cda"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/crl"
	"github.com/xtreemos/xos/vom/rca"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

// run serves until ctx ends.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return xos.Errorf(xos.Internal, "making %s: %w", cfg.State, err)
	}
	db, err := openRecords(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer db.Close()
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
	signer, err := authority.Open(filepath.Join(cfg.State, "ca"), db, time.Now)
	if err != nil {
		return err
	}
	files, err := newFiles(ctx, cfg, db, log)
	if err != nil {
		return err
	}
	trust := signer.Trust()
	trust.CoreKey = files.key()
	records, err := xvoms.New(ctx, xvoms.Config{
		Site: cfg.Name, UserTTL: cfg.UserValidity.Duration, Offline: cfg.Offline.Duration, Trust: trust, Log: log,
		Isolation: func(text string) error { _, err := isolation.Parse([]byte(text)); return err },
	}, db, files.volumes(), vops.Check)
	if err != nil {
		return err
	}
	verifier := credential.NewVerifier(records.Bundle, time.Now)
	// The core has no owner who forbids: VOs' policies alone.
	policy, err := vops.New(records.Bundle, vops.Site{VOs: []xos.VOName{"*"}})
	if err != nil {
		return err
	}
	own := &ownCertificate{name: xos.NodeID(cfg.Name), records: records, authority: signer}
	if err := own.renew(ctx); err != nil {
		return err
	}
	messages, err := startBus(ctx, cfg, verifier, own, log)
	if err != nil {
		return err
	}
	defer messages.close()

	mux := http.NewServeMux()
	opts := rpc.ServerOptions(log)
	mux.Handle(xosv1connect.NewCredentialsHandler(cda.New(records, signer, verifier, history,
		cda.Delegating{Policy: policy, Validity: cfg.DelegatedValidity.Duration}, time.Now, log), opts...))
	mux.Handle(xosv1connect.NewMachinesHandler(rca.New(records, signer, verifier, history, cfg.Name, log), opts...))
	mux.Handle(xosv1connect.NewAuditHandler(auditor.New(history, verifier, log), opts...))
	admins := xvoms.NewService(records, verifier, history, log)
	mux.Handle(xosv1connect.NewVOsHandler(admins, opts...))
	mux.Handle(xosv1connect.NewRevocationsHandler(admins, opts...))
	crl.New(records, signer, time.Now, log).Handle(mux)
	files.handle(mux, verifier, opts)
	jobs := handleJobs(mux, db, verifier, opts, log)

	tcp, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "listening: %w", err)
	}
	admin, err := listenAdmin(cfg)
	if err != nil {
		tcp.Close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	peers := watch(verifier)
	group.Go(func() error {
		l, cfg := peers.api.Watch(tcp, clientTLS(verifier, own))
		return rpc.ServeTLS(ctx, l, cfg, mux)
	})
	group.Go(func() error { return peers.run(ctx) })
	group.Go(func() error { return rpc.Serve(ctx, admin, mux) })
	group.Go(func() error { return told.Run(ctx) })
	group.Go(func() error { return history.Run(ctx) })
	group.Go(func() error { return records.Run(ctx) })
	group.Go(func() error { return jobs.Run(ctx) })
	group.Go(func() error { return own.run(ctx, log) })
	group.Go(func() error { return files.run(ctx, verifier, own.get, peers.files) })
	group.Go(func() error { return announce(ctx, records, messages, peers, log) })
	log.Info("serving", "name", cfg.Name, "api", tcp.Addr().String(), "version", version)
	daemon.SdNotify(false, daemon.SdNotifyReady)
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	return group.Wait()
}

func openRecords(ctx context.Context, cfg config, log *slog.Logger) (kv.Store, error) {
	if len(cfg.Etcd) == 0 {
		return pebble.Open(filepath.Join(cfg.State, "kv"), log)
	}
	pair, err := tls.LoadX509KeyPair(cfg.EtcdCert, cfg.EtcdKey)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading etcd_cert and etcd_key: %w", err)
	}
	pem, err := os.ReadFile(cfg.EtcdCA)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading etcd_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, xos.Errorf(xos.Invalid, "%s holds no certificate", cfg.EtcdCA)
	}
	return etcd.Open(ctx, etcd.Config{
		Endpoints: cfg.Etcd, Prefix: "xos/", Log: log,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots},
	})
}

// clientTLS asks every client for a certificate and demands none: some calls
// are how one gets the first, and who is revoked may still ask why. Each
// handler verifies what was shown.
func clientTLS(v *credential.Verifier, own *ownCertificate) *tls.Config {
	cfg := v.ServerTLS(own.get, false)
	cfg.VerifyConnection = nil
	cfg.NextProtos = rpc.NextProtos()
	return cfg
}

// listenAdmin gives the administrators' socket: the one that the service manager
// passed, else one of our own. Only root passes the handlers.
func listenAdmin(cfg config) (net.Listener, error) {
	passed, err := activation.Listeners()
	if err == nil && len(passed) > 0 && passed[0] != nil {
		return passed[0], nil
	}
	return rpc.ListenUnix(cfg.Socket, 0o600)
}

// core bus: the server and the core's own connection to it.
type busService struct {
	server *natsd.Server
	conn   bus.Conn
}

func (b busService) close() {
	b.conn.Close()
	b.server.Close()
}

func startBus(ctx context.Context, cfg config, v *credential.Verifier, own *ownCertificate, log *slog.Logger) (busService, error) {
	server, err := natsd.Start(natsd.Config{
		Listen: cfg.ListenBus, TLS: v.ServerTLS(own.get, true), Log: log,
		Authorize: func(chain []*x509.Certificate) (string, []string, []string, error) {
			m, err := v.Machine(chain)
			if err != nil {
				return "", nil, nil, err
			}
			pub, sub := subjects(m)
			return string(m.Node) + "/" + string(m.Service), pub, sub, nil
		},
	})
	if err != nil {
		return busService{}, err
	}
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		return busService{}, err
	}
	conn, err := nats.Connect(ctx, nats.Config{
		Servers: []string{net.JoinHostPort("localhost", port)}, Name: cfg.Name + "/" + string(vom.ServiceCore),
		TLS: v.ClientTLS(own.get, vom.ServiceCore), Log: log,
	})
	if err != nil {
		server.Close()
		return busService{}, err
	}
	return busService{server, conn}, nil
}

// subjects says what a machine may publish and hear.
func subjects(m vom.Machine) (pub, sub []string) {
	switch m.Service {
	case vom.ServiceCore:
		return []string{"xos.>"}, []string{"xos.>"}
	case vom.ServiceNode:
		return []string{"rss.>"}, []string{"xos.>", "rss.>"}
	}
	return nil, []string{"xos.>"}
}

// announce tells machines of every new bundle, and ends connections whose
// certificates it refuses.
func announce(ctx context.Context, records *xvoms.Records, b busService, p peers, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case epoch := <-records.Changed():
			data, err := json.Marshal(map[string]uint64{"epoch": epoch})
			if err == nil {
				err = b.conn.Publish(ctx, "xos.bundle", data)
			}
			if err != nil {
				log.Warn("cannot announce the bundle; machines poll it", "epoch", epoch, "error", err)
			}
			b.server.Recheck()
			if n := p.recheck(); n > 0 {
				log.Info("connections ended: their certificates are refused now", "epoch", epoch, "connections", n)
			}
		}
	}
}
