package client

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

// Remote reaches the services of a volume over the network.
type Remote struct {
	// MRC is host:port of the metadata service.
	MRC    string
	Volume xos.VolumeID
	// TLSMRC and TLSStorage show the user's delegated credential and verify
	// the servers.
	TLSMRC, TLSStorage *tls.Config
	// Shown gives what stands for the credential that is shown now, if it is
	// not nil: when that changes, connections are made anew.
	Shown func() any
	Log   *slog.Logger
}

// Deps gives what a Client needs. Nothing is connected before it is used.
func (r Remote) Deps() Deps {
	mrc := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: r.TLSMRC}).DialContext(ctx, "tcp", r.MRC)
	})
	mrc.Follow(r.Shown)
	p := &pool{tls: r.TLSStorage, shown: r.Shown, osds: map[string]*remoteOSD{}}
	return Deps{MRC: frame.NewMRC(mrc, r.Volume), Storage: p.get, Shown: r.Shown, Log: r.Log, Close: func() {
		mrc.Close()
		p.close()
	}}
}

// pool has one connection for each OSD.
type pool struct {
	tls   *tls.Config
	shown func() any
	mu    sync.Mutex
	osds  map[string]*remoteOSD
}

func (p *pool) get(at xfs.Target) Storage {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.osds[at.OSD]
	if o == nil {
		o = &remoteOSD{tls: p.tls}
		o.conn = frame.NewClient(o.dial)
		o.conn.Follow(p.shown)
		o.OSD = frame.NewOSD(o.conn)
		p.osds[at.OSD] = o
	}
	o.address.Store(&at.Address) // an OSD may have moved
	return o
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.osds {
		o.conn.Close()
	}
}

// remoteOSD is an OSD that counts its connections.
type remoteOSD struct {
	xfs.OSD
	conn    *frame.Client
	tls     *tls.Config
	address atomic.Pointer[string]
	made    atomic.Uint64
}

func (o *remoteOSD) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&tls.Dialer{Config: o.tls}).DialContext(ctx, "tcp", *o.address.Load())
	if err == nil {
		o.made.Add(1) // before anything can be answered on it
	}
	return conn, err
}

// Connections implements Storage.
func (o *remoteOSD) Connections() uint64 { return o.made.Load() }
