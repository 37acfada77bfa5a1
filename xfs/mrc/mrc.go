// Package mrc is the metadata and replica catalogue (MRC): names, attributes
// and layouts of all volumes, on infra/kv. Each change is one transaction,
// durable when it is answered, and safe to ask for twice.
//
// Who asks is read from the connection's certificate: a user's delegated
// credential, which names the machine too. A volume is open to its owner only;
// volumes that a VO shares are not built yet.
package mrc

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

// Storage says which OSDs there are: xfs/dir.
type Storage interface {
	// Pick gives the OSD for a new file; xos.Unavailable if none answers.
	Pick(ctx context.Context) (xfs.Target, error)
	// Target gives the present address of an OSD.
	Target(ctx context.Context, osd string) (xfs.Target, error)
	// Space sums up the OSDs that answer.
	Space(ctx context.Context) (total, free int64, err error)
}

// Volumes says which volumes there are: xfs/dir.
type Volumes interface {
	Volume(ctx context.Context, name xos.VolumeID) (Volume, error)
}

// Volume is what the MRC must know of one.
type Volume struct {
	Name       xos.VolumeID
	Owner      xos.Account
	ObjectSize int64
}

// Config of the service; zero values mean the defaults named.
type Config struct {
	// CapabilityTTL is for how long a capability serves; 10 min.
	CapabilityTTL time.Duration
	// OrphanTTL is for how long an unlinked file is kept for a client that
	// had it open and was never heard of again; 24 h.
	OrphanTTL time.Duration
	Now       func() time.Time
	Log       *slog.Logger
}

// Service serves all volumes of one store.
type Service struct {
	cfg     Config
	db      kv.Store
	storage Storage
	key     ed25519.PrivateKey

	mu      sync.Mutex
	inodes  map[xos.VolumeID]*numbers
	deleted chan struct{} // signalled when there is something to purge
}

// New opens the service. Its capability key is made at first use and kept in
// db.
func New(ctx context.Context, cfg Config, db kv.Store, storage Storage) (*Service, error) {
	if cfg.CapabilityTTL == 0 {
		cfg.CapabilityTTL = 10 * time.Minute
	}
	if cfg.OrphanTTL == 0 {
		cfg.OrphanTTL = 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, db: db, storage: storage, inodes: map[xos.VolumeID]*numbers{}, deleted: make(chan struct{}, 1)}
	err := db.Update(ctx, func(t kv.Txn) error {
		seed, ok, err := t.Get([]byte("xfs/capability-key"))
		if err != nil {
			return err
		}
		if !ok {
			seed = make([]byte, ed25519.SeedSize)
			rand.Read(seed)
			if err := t.Put([]byte("xfs/capability-key"), seed); err != nil {
				return err
			}
		}
		s.key = ed25519.NewKeyFromSeed(seed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Key gives the public key that capabilities verify with.
func (s *Service) Key() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Serve answers frames on l, whose TLS must ask for client certificates, until
// ctx ends.
func (s *Service) Serve(ctx context.Context, l net.Listener, verifier *credential.Verifier, volumes Volumes) error {
	var known frame.Known[vom.Identity]
	server := frame.ServeMRC(s.cfg.Log, func(ctx context.Context, p *frame.Peer, volume xos.VolumeID) (xfs.MRC, error) {
		// Verified at each request: a connection outlives a revocation.
		id, err := known.Get(p, func() (vom.Identity, error) { return delegated(verifier, p) })
		if err != nil {
			return nil, err
		}
		v, err := volumes.Volume(ctx, volume)
		if err != nil {
			return nil, err
		}
		if id.Account != v.Owner {
			// As if it did not exist: names of volumes are nobody else's business.
			return nil, xos.Errorf(xos.NotFound, "there is no volume %.80q for %s", v.Name, id.Account)
		}
		return s.View(v, id), nil
	})
	return server.Serve(ctx, l)
}

// delegated gives whose credential a peer showed.
func delegated(verifier *credential.Verifier, p *frame.Peer) (vom.Identity, error) {
	id, err := verifier.X509Running(p.Chain)
	if err == nil && id.Node == "" {
		err = xos.Errorf(xos.Permission, "files are accessed with a delegated credential, not with one's own certificate")
	}
	return id, err
}

// View gives a volume as one user may see it: each file by its mode. Whether
// a file's directories let her search them is not asked when she names it by
// number, so who may use a volume at all is the caller's to decide.
func (s *Service) View(v Volume, id vom.Identity) xfs.MRC {
	w := &view{Service: s, volume: v, who: id, account: id.Account.String(), groups: map[string]bool{}}
	for _, g := range id.GroupNames() {
		w.groups[g] = true
	}
	return w
}

// CreateVolume makes an empty volume; one that exists is no error.
func (s *Service) CreateVolume(ctx context.Context, v Volume) error {
	return s.db.Update(ctx, func(t kv.Txn) error { return s.Format(t, v) })
}

// Format makes an empty volume within a transaction of its directory.
func (s *Service) Format(t kv.Txn, v Volume) error {
	x := tx{t, v.Name}
	if _, ok, err := x.inode(xfs.RootInode); err != nil || ok {
		return err
	}
	now := s.cfg.Now().UnixNano()
	root := inode{Mode: modeDir | 0o700, Nlink: 1, Owner: v.Owner.String(), Atime: now, Mtime: now, Ctime: now, Version: 1}
	return x.put(xfs.RootInode, root)
}

// numbers gives out a volume's inode numbers, from ranges that it takes from
// the records: creating files must not meet in one counter.
type numbers struct {
	mu        sync.Mutex
	next, end xfs.Inode
}

const numbersAtOnce = 4096

func (s *Service) newInode(ctx context.Context, volume xos.VolumeID) (xfs.Inode, error) {
	s.mu.Lock()
	n := s.inodes[volume]
	if n == nil {
		n = &numbers{}
		s.inodes[volume] = n
	}
	s.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == n.end {
		var first xfs.Inode
		err := s.db.Update(ctx, func(t kv.Txn) error {
			key := []byte("xfs/v/" + string(volume) + "/next")
			data, ok, err := t.Get(key)
			if err != nil {
				return err
			}
			first = xfs.RootInode + 1
			if ok {
				if err := json.Unmarshal(data, &first); err != nil {
					return xos.Errorf(xos.Internal, "reading the inode counter of %s: %w", volume, err)
				}
			}
			data, err = json.Marshal(first + numbersAtOnce)
			if err != nil {
				return err
			}
			return t.Put(key, data)
		})
		if err != nil {
			return 0, err
		}
		n.next, n.end = first, first+numbersAtOnce
	}
	n.next++
	return n.next - 1, nil
}
