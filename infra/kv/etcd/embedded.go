package etcd

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/xtreemos/xos"
)

// Embedded is an etcd server of one member inside this process. It listens on
// no socket: only this process reaches its records.
type Embedded struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	cfg    Config
}

// What the embedded server allows, beyond etcd's defaults.
const (
	embeddedTxnOps       = 4096
	embeddedRequestBytes = 12 << 20
)

// StartEmbedded starts, or makes, the server whose data is in dir, and returns
// when it serves. The caller must Close it, after its stores.
func StartEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Embedded, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "start etcd: %w", err)
	}
	return start(ctx, embedConfig(dir, log), log)
}

func embedConfig(dir string, log *slog.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.ListenClientHttpUrls = nil, nil, nil
	// A member must have an address in the cluster's records, though nobody
	// dials the only one's.
	nowhere := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{nowhere}, []url.URL{nowhere}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.MaxTxnOps, cfg.MaxRequestBytes = embeddedTxnOps, embeddedRequestBytes
	cfg.QuotaBackendBytes = 8 << 30
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapCore{log}))
	return cfg
}

func start(ctx context.Context, cfg *embed.Config, log *slog.Logger) (*Embedded, error) {
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "start etcd in %s: %w", cfg.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, xos.Errorf(xos.Unavailable, "start etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		e.Close()
		return nil, xos.Errorf(xos.Unavailable, "start etcd in %s: %w", cfg.Dir, ctx.Err())
	}
	return &Embedded{
		etcd: e, client: v3client.New(e.Server),
		cfg: Config{MaxTxnOps: int(cfg.MaxTxnOps), MaxRequestBytes: int(cfg.MaxRequestBytes), Log: log},
	}, nil
}

// Store gives the records whose keys in etcd begin with prefix. The caller
// must Close it.
func (e *Embedded) Store(prefix string) *Store {
	cfg := e.cfg
	cfg.Prefix = prefix
	return newStore(e.client, cfg, false)
}

// Close stops the server.
func (e *Embedded) Close() error {
	err := e.client.Close()
	e.etcd.Close()
	if err != nil && err != context.Canceled {
		return xos.Errorf(xos.Internal, "stop etcd: %w", err)
	}
	return nil
}

// zapCore passes etcd's warnings and errors on to slog.
type zapCore struct{ log *slog.Logger }

func (c zapCore) Enabled(l zapcore.Level) bool      { return l >= zapcore.WarnLevel }
func (c zapCore) With([]zapcore.Field) zapcore.Core { return c }
func (c zapCore) Sync() error                       { return nil }
func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, e.Message, "from", "etcd", "at", e.Time.Format(time.RFC3339), "fields", enc.Fields)
	return nil
}
