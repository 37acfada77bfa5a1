package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/trust"
	"github.com/xtreemos/xos/xfs/osd"
)

// run serves until ctx ends.
func run(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	store, err := osd.Open(cfg.Data, cfg.Capacity)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := store.Close(); err == nil {
			err = cerr
		}
	}()
	keeper, err := trust.Open(trust.Config{Dir: cfg.State, Core: cfg.Core, TrustDir: cfg.Trust, Log: log})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "listening: %w", err)
	}
	service := osd.NewService(store, time.Now, log)
	if key := keeper.Bundle().CoreKey; len(key) > 0 {
		service.SetKey(key)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return keeper.Run(ctx) })
	peers := keeper.Verifier().RunningConnections()
	keeper.OnChange(func(vom.Bundle) { peers.Recheck() })
	group.Go(func() error { return peers.Run(ctx) })
	group.Go(func() error {
		l, cfg := peers.Watch(l, keeper.Verifier().RunningServerTLS(keeper.Certificate))
		return service.Serve(ctx, tls.NewListener(l, cfg), keeper.Verifier())
	})
	group.Go(func() error { return hear(ctx, cfg, keeper, log) })
	group.Go(func() error { return announce(ctx, cfg, l.Addr(), store, keeper, service, log) })
	log.Info("serving", "osd", store.ID(), "address", l.Addr().String(), "version", version)
	daemon.SdNotify(false, daemon.SdNotifyReady)
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	return group.Wait()
}

// announceEvery is how often the core hears of this OSD.
const announceEvery = 10 * time.Second

// announce tells the core of this OSD, more often until it has succeeded once.
func announce(ctx context.Context, cfg config, at net.Addr, store *osd.Store, keeper *trust.Keeper, service *osd.Service, log *slog.Logger) error {
	client := xosv1connect.NewDirectoryClient(rpc.TLSClient(keeper.CoreTLS()), "https://"+cfg.Core, rpc.ClientOptions()...)
	reached := false
	for wait := time.Second; ; {
		err := announceOnce(ctx, cfg, at, store, client, service)
		if (err == nil) != reached {
			reached = err == nil
			if reached {
				log.Info("announced to the core", "core", cfg.Core)
			} else {
				log.Warn("cannot announce this storage to the core", "core", cfg.Core, "error", err)
			}
		}
		if reached {
			wait = announceEvery
		} else {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func announceOnce(ctx context.Context, cfg config, at net.Addr, store *osd.Store, client xosv1connect.DirectoryClient, service *osd.Service) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	total, free, err := store.Space()
	if err != nil {
		return err
	}
	address, err := advertise(cfg, at)
	if err != nil {
		return err
	}
	resp, err := client.AnnounceStorage(ctx, connect.NewRequest(&xosv1.AnnounceStorageRequest{Id: store.ID(), Address: address, Total: total, Free: free}))
	if err != nil {
		return err
	}
	service.SetKey(resp.Msg.CapabilityKey)
	return nil
}

// advertise gives the address that clients are told: this machine's as it is
// seen on the way to the core. On the core's own machine that may be loopback,
// which serves nobody else; then the first global address is taken.
func advertise(cfg config, at net.Addr) (string, error) {
	if cfg.Advertise != "" {
		return cfg.Advertise, nil
	}
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("udp", cfg.Core) // sends nothing
	if err != nil {
		return "", xos.Errorf(xos.Unavailable, "finding the way to %s: %w", cfg.Core, err)
	}
	defer conn.Close()
	ip := conn.LocalAddr().(*net.UDPAddr).IP
	if ip.IsLoopback() {
		found, _ := net.InterfaceAddrs()
		for _, f := range found {
			if n, ok := f.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				ip = n.IP
				break
			}
		}
	}
	return net.JoinHostPort(ip.String(), port), nil
}
