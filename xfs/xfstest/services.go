package xfstest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/dir"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/mrc"
	"github.com/xtreemos/xos/xfs/osd"
)

// Volume is the volume that Start makes, alice@physics's home.
const Volume xos.VolumeID = "home-physics-alice"

// Services are a file system for tests: the real metadata and storage services
// on loopback TLS, with certificates of a throw-away authority: one MRC with its directory and one OSD. Each can be stopped
// and started again with what it keeps on disk.
type Services struct {
	t         testing.TB
	Authority *credtest.Authority
	MRC       *mrc.Service
	Dir       *dir.Service
	DB        kv.Store
	Store     *osd.Store

	log              *slog.Logger
	data             string
	capacity         int64
	mrcAddr, osdAddr string
	stopMRC, stopOSD func()
}

// Start starts the services; capacity bounds the storage (0: the disk).
func Start(t testing.TB, capacity int64) *Services {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	db, err := pebble.Open(filepath.Join(t.TempDir(), "kv"), log)
	if err != nil {
		t.Fatal(err)
	}
	s := &Services{t: t, Authority: credtest.New(t), DB: db, log: log, data: t.TempDir(), capacity: capacity}
	t.Cleanup(func() { db.Close() })
	s.Dir = dir.New(dir.Config{Alive: time.Hour}, db)
	s.mrcAddr, s.osdAddr = "127.0.0.1:0", "127.0.0.1:0"
	s.StartMRC()
	s.StartOSD()
	t.Cleanup(func() { s.StopOSD(); s.StopMRC() })
	owner, err := xos.ParseAccount("alice@physics")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Dir.CreateVolume(context.Background(), Volume, owner); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Services) listen(address string) net.Listener {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

// run runs f until the function it gives is called.
func (s *Services) run(f func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

func (s *Services) serverTLS(service vom.Service) *tls.Config {
	cert := s.Authority.Machine("core", service)
	return s.Authority.Verifier().ServerTLS(credtest.Show(cert), true)
}

// StartMRC starts the metadata service on the same records and address.
func (s *Services) StartMRC() {
	s.t.Helper()
	m, err := mrc.New(context.Background(), mrc.Config{Log: s.log}, s.DB, s.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.MRC = m
	s.Dir.Use(m, m.Key())
	l := s.listen(s.mrcAddr)
	s.mrcAddr = l.Addr().String()
	v := s.Authority.Verifier()
	dial := func(ctx context.Context, at xfs.Target) (xfs.OSD, func(), error) {
		cfg := v.ClientTLS(credtest.Show(s.Authority.Machine("core", vom.ServiceCore)), vom.ServiceStorage)
		c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", at.Address)
		})
		return frame.NewOSD(c), func() { c.Close() }, nil
	}
	serve := s.run(func(ctx context.Context) error {
		return m.Serve(ctx, tls.NewListener(l, s.serverTLS(vom.ServiceCore)), v, s.Dir)
	})
	purge := s.run(func(ctx context.Context) error { return m.Purge(ctx, "core", dial) })
	s.stopMRC = func() { purge(); serve() }
}

// StopMRC stops the metadata service.
func (s *Services) StopMRC() { s.stopMRC() }

// StartOSD starts the storage on the same data and address.
func (s *Services) StartOSD() {
	s.t.Helper()
	store, err := osd.Open(s.data, s.capacity)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Store = store
	service := osd.NewService(store, time.Now, s.log)
	service.SetKey(s.MRC.Key())
	l := s.listen(s.osdAddr)
	s.osdAddr = l.Addr().String()
	stop := s.run(func(ctx context.Context) error {
		return service.Serve(ctx, tls.NewListener(l, s.serverTLS(vom.ServiceStorage)), s.Authority.Verifier())
	})
	s.stopOSD = func() {
		stop()
		store.Close()
	}
	total, free, err := store.Space()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.Dir.Announce(context.Background(), store.ID(), s.osdAddr, total, free, "core"); err != nil {
		s.t.Fatal(err)
	}
}

// StopOSD stops the storage.
func (s *Services) StopOSD() { s.stopOSD() }

// Remote reaches the volume as alice on a machine.
func (s *Services) Remote(node xos.NodeID) client.Remote {
	v := s.Authority.Verifier()
	cert := credtest.Show(s.Authority.Delegated("alice@physics", node))
	return client.Remote{
		MRC: s.mrcAddr, Volume: Volume, Log: s.log,
		TLSMRC: v.ClientTLS(cert, vom.ServiceCore), TLSStorage: v.ClientTLS(cert, vom.ServiceStorage),
	}
}

// Client gives a running client of the volume on a machine; it is closed at
// the test's end.
func (s *Services) Client(node xos.NodeID, cfg client.Config) *client.Client {
	return s.ClientOf(s.t, node, cfg)
}

// ClientOf is Client for another test than that of the services.
func (s *Services) ClientOf(t testing.TB, node xos.NodeID, cfg client.Config) *client.Client {
	c := client.New(cfg, s.Remote(node).Deps())
	stop := s.run(c.Run)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.Close(ctx)
		stop()
	})
	return c
}
