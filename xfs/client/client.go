// Package client is everything of XtreemFS between calls that look like
// POSIX's and the two services: the metadata and replica catalogue (MRC) and
// the object storage devices (OSD).
//
// # Consistency
//
// Close-to-open: who opens a file sees what was written by those who closed it
// before, on any machine. Within one Client changes are visible at once.
// Data that was written is held here and sent later: when a chunk is full,
// after about a second, at Flush (close) and at Sync.
//
// # Failures
//
// A service that is away is waited for, Config.Retry long, and asked without
// waiting after that; data to be written always has that time. Every change
// carries a request id, so that repeating it is harmless. An OSD that restarts
// may lose what it acknowledged and had not synced. That data is kept here
// until a Sync that surely covers it: one between which and the write no
// connection to the OSD was made anew (Storage.Connections); else it is sent
// again first. Errors of writing back are given once to each File that was
// open, by its next write, Flush, Sync or Close.
//
// # Locks
//
// Client.mu guards the table of inodes; inode.gate keeps truncation apart from
// reads and writes; inode.mu guards an inode's state. They are taken in the
// order inode.link, inode.gate, inode.mu, Client.mu; only link and gate are
// held during calls to services.
package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtreemos/xos/xfs"
)

// Storage is one OSD and what tells that it may have restarted.
type Storage interface {
	xfs.OSD
	// Connections grows whenever a connection to the OSD is made.
	Connections() uint64
}

// Config has the bounds of a Client; zero fields get the defaults.
type Config struct {
	// Retry is how long a service that is away is waited for, from the first
	// call that found it so; default 60 s.
	Retry time.Duration
	// Attempt is how long a single request may take; default 20 s.
	Attempt time.Duration
	// Buffers bounds the bytes held because they are not yet durable;
	// default 128 MiB.
	Buffers int64
	// ReadAhead bounds the bytes read before they are asked for; default 32 MiB.
	ReadAhead int64
	// WriteBack is the age at which data is sent without being asked to, and
	// twice that at which it is synced; default 1 s.
	WriteBack time.Duration
}

// Deps is what a Client works with.
type Deps struct {
	MRC xfs.MRC
	// Storage reaches an OSD of a layout; it does not connect.
	Storage func(xfs.Target) Storage
	// Changed, which may be nil, is told of files that someone else changed,
	// so that cached data is dropped. No locks are held.
	Changed func(xfs.Inode)
	// Shown, which may be nil, gives what stands for the credential that the
	// services are shown: with another one they are asked again at once, however
	// long they have refused.
	Shown func() any
	// Close, which may be nil, ends the connections when the Client is closed.
	Close func()
	// Log gets what nobody waits for: failures of background work.
	Log *slog.Logger
}

// Client is one volume as its user on this machine sees it. Safe for
// concurrent use. Run must be running.
type Client struct {
	cfg     Config
	deps    Deps
	mrc     xfs.MRC
	id      uint64
	counter atomic.Uint64

	used atomic.Int64 // bytes in chunks

	mrcAway  outage
	osdsAway sync.Map // by OSD: *outage

	writers chan struct{}
	kick    chan struct{}

	mu     sync.Mutex
	room   *sync.Cond // of mu: used has shrunk
	inodes map[xfs.Inode]*inode
	active map[*inode]struct{} // with data not yet durable
}

// New makes a client.
func New(cfg Config, deps Deps) *Client {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Retry, 60*time.Second)
	def(&cfg.Attempt, 20*time.Second)
	def(&cfg.WriteBack, time.Second)
	if cfg.Buffers == 0 {
		cfg.Buffers = 128 << 20
	}
	if cfg.ReadAhead == 0 {
		cfg.ReadAhead = 32 << 20
	}
	if deps.Close == nil {
		deps.Close = func() {}
	}
	if deps.Changed == nil {
		deps.Changed = func(xfs.Inode) {}
	}
	var seed [8]byte
	rand.Read(seed[:])
	c := &Client{cfg: cfg, deps: deps, mrc: deps.MRC, id: binary.LittleEndian.Uint64(seed[:]),
		writers: make(chan struct{}, 8), kick: make(chan struct{}, 1),
		inodes: map[xfs.Inode]*inode{}, active: map[*inode]struct{}{}}
	c.room = sync.NewCond(&c.mu)
	return c
}

// SetChanged sets Deps.Changed where it is known only after New; before use.
func (c *Client) SetChanged(f func(xfs.Inode)) { c.deps.Changed = f }

// away gives the outage of an OSD.
func (c *Client) away(osd string) *outage {
	o, _ := c.osdsAway.LoadOrStore(osd, new(outage))
	return o.(*outage)
}

func (c *Client) request() xfs.RequestID {
	return xfs.RequestID{Client: c.id, Number: c.counter.Add(1)}
}

// Run sends data back as it ages, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.WriteBack / 2)
	defer tick.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	for {
		pressed := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.kick:
			pressed = true
		case <-tick.C:
		}
		c.age(pressed, &work)
		c.probe(ctx, &work)
	}
}

// Close makes everything durable that can be; no File may be used any more.
// Its error is the first that lost data.
func (c *Client) Close(ctx context.Context) error {
	defer c.deps.Close()
	var first error
	for {
		var todo *inode
		c.mu.Lock()
		for in := range c.active {
			todo = in
			in.busy++
			break
		}
		c.mu.Unlock()
		if todo == nil {
			return first
		}
		if err := todo.sync(ctx); err != nil && first == nil {
			first = err
		}
		todo.abandon()
		c.done(todo)
	}
}
