package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/xvoms"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/dir"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/mrc"
)

// files is the file system's part of the core: directory and metadata.
type files struct {
	name     xos.NodeID
	dir      *dir.Service
	mrc      *mrc.Service
	listener net.Listener
}

func newFiles(ctx context.Context, cfg config, db kv.Store, log *slog.Logger) (*files, error) {
	l, err := net.Listen("tcp", cfg.ListenMRC)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listening for metadata requests: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	f := &files{name: xos.NodeID(cfg.Name), listener: l, dir: dir.New(dir.Config{MRC: ":" + port}, db)}
	if f.mrc, err = mrc.New(ctx, mrc.Config{Log: log}, db, f.dir); err != nil {
		l.Close()
		return nil, err
	}
	f.dir.Use(f.mrc, f.mrc.Key())
	return f, nil
}

func (f *files) key() []byte            { return f.mrc.Key() }
func (f *files) volumes() xvoms.Volumes { return f.dir }

func (f *files) handle(mux *http.ServeMux, v *credential.Verifier, opts []connect.HandlerOption) {
	mux.Handle(xosv1connect.NewDirectoryHandler(f.dir.Handler(v), opts...))
}

func (f *files) run(ctx context.Context, v *credential.Verifier, cert credential.Certificate, peers *credential.Connections) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		l, cfg := peers.Watch(f.listener, v.RunningServerTLS(cert))
		return f.mrc.Serve(ctx, tls.NewListener(l, cfg), v, f.dir)
	})
	group.Go(func() error { return f.mrc.Purge(ctx, f.name, dialOSD(v.ClientTLS(cert, vom.ServiceStorage))) })
	return group.Wait()
}

// dialOSD connects to storage as the core.
func dialOSD(cfg *tls.Config) mrc.Dial {
	return func(ctx context.Context, at xfs.Target) (xfs.OSD, func(), error) {
		c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", at.Address)
		})
		return frame.NewOSD(c), func() { c.Close() }, nil
	}
}
