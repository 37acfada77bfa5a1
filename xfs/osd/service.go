package osd

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

// Service answers for a Store on the network: it checks who asks and that they
// hold a capability.
type Service struct {
	store *Store
	now   func() time.Time
	log   *slog.Logger
	key   atomic.Pointer[ed25519.PublicKey] // verifies capabilities

	mu       sync.Mutex
	verified map[[sha256.Size]byte]time.Time // capabilities found genuine, with their end
}

// NewService makes the service of a store.
func NewService(store *Store, now func() time.Time, log *slog.Logger) *Service {
	return &Service{store: store, now: now, log: log, verified: map[[sha256.Size]byte]time.Time{}}
}

// SetKey says which key verifies capabilities. Until it is called all are
// refused.
func (s *Service) SetKey(key ed25519.PublicKey) {
	if old := s.key.Swap(&key); old != nil && !old.Equal(key) {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.verified)
	}
}

// Serve answers frames on l, whose TLS must ask for client certificates, until
// ctx ends. In the background all that is written is made durable every two
// seconds, so that little waits for a Sync.
func (s *Service) Serve(ctx context.Context, l net.Listener, v *credential.Verifier) error {
	var known frame.Known[xos.NodeID]
	server := frame.ServeOSD(s.log, func(_ context.Context, p *frame.Peer) (xfs.OSD, error) {
		node, err := known.Get(p, func() (xos.NodeID, error) { return peerNode(v, p) })
		if err != nil {
			return nil, err
		}
		return &view{s, node}, nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		forget := time.NewTicker(time.Hour)
		defer forget.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-forget.C:
				if err := s.store.forgetDeleted(now); err != nil {
					s.log.Error("forgetting old deletions", "error", err)
				}
			case <-tick.C:
				if err := s.store.SyncAll(); err != nil {
					s.log.Error("making data durable", "error", err)
				}
			}
		}
	}()
	err := server.Serve(ctx, l)
	<-done
	return err
}

// peerNode gives the machine that asks: a core, or a node with a user's
// delegated credential.
func peerNode(v *credential.Verifier, p *frame.Peer) (xos.NodeID, error) {
	if m, err := v.Machine(p.Chain); err == nil {
		if m.Service != vom.ServiceCore {
			return "", xos.Errorf(xos.Permission, "service %q has no data here", m.Service)
		}
		return m.Node, nil
	}
	id, err := v.X509Running(p.Chain)
	if err != nil {
		return "", err
	}
	if id.Node == "" {
		return "", xos.Errorf(xos.Permission, "data is accessed with a delegated credential")
	}
	return id.Node, nil
}

// view is the store as one machine may use it.
type view struct {
	*Service
	node xos.NodeID
}

var (
	_ xfs.OSD          = (*view)(nil)
	_ frame.ReaderInto = (*view)(nil)
)

// check verifies a capability; one that was verified before costs a hash.
func (v *view) check(c xfs.Capability, want xfs.Rights) error {
	if c.Rights&want != want {
		return xos.Errorf(xos.Permission, "the capability does not allow this")
	}
	if c.Node != v.node {
		return xos.Errorf(xos.Permission, "the capability is %s's, not %s's", c.Node, v.node)
	}
	encoded, err := frame.EncodeCapability(&c)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(encoded)
	now := v.now()
	v.mu.Lock()
	end, known := v.verified[sum]
	v.mu.Unlock()
	if known && now.Before(end) {
		return nil
	}
	key := v.key.Load()
	if key == nil {
		return xos.Errorf(xos.Unavailable, "this storage has not yet heard from the core")
	}
	if err := frame.Verify(&c, *key, now); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verified) >= 16384 {
		v.verified = map[[sha256.Size]byte]time.Time{}
	}
	v.verified[sum] = c.Expires
	return nil
}

func (v *view) Write(_ context.Context, c xfs.Capability, object uint64, off int64, data []byte, sums []uint32) error {
	if err := v.check(c, xfs.MayWrite); err != nil {
		return err
	}
	return v.store.Write(c.File, object, off, data, sums)
}

func (v *view) Read(ctx context.Context, c xfs.Capability, object uint64, off int64, n int) ([]byte, []uint32, error) {
	if n < 0 || n > frame.MaxBulk {
		return nil, nil, xos.Errorf(xos.TooLarge, "a read of %d bytes", n)
	}
	buf := make([]byte, n)
	n, sums, err := v.ReadInto(ctx, c, object, off, buf)
	return buf[:n], sums, err
}

func (v *view) ReadInto(_ context.Context, c xfs.Capability, object uint64, off int64, buf []byte) (int, []uint32, error) {
	if err := v.check(c, xfs.MayRead); err != nil {
		return 0, nil, err
	}
	return v.store.ReadInto(c.File, object, off, buf)
}

func (v *view) Truncate(_ context.Context, c xfs.Capability, size, objectSize int64) error {
	if err := v.check(c, xfs.MayWrite); err != nil {
		return err
	}
	return v.store.Truncate(c.File, size, objectSize)
}

func (v *view) Sync(_ context.Context, c xfs.Capability) error {
	if err := v.check(c, xfs.MayWrite); err != nil {
		return err
	}
	return v.store.Sync(c.File)
}

func (v *view) Delete(_ context.Context, c xfs.Capability) error {
	if err := v.check(c, xfs.MayDelete); err != nil {
		return err
	}
	return v.store.Delete(c.File)
}

func (v *view) Space(context.Context) (total, free int64, err error) { return v.store.Space() }
