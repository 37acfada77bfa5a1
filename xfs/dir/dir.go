// Package dir is the directory service (DIR): which volumes there are, and
// which object storage devices serve them. It serves Directory of api/xos/v1.
package dir

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/mrc"
)

// Config of the directory; zero values mean the defaults named.
type Config struct {
	// MRC is the address that clients are told for metadata, "host:port"; with
	// an empty host they take the one they asked here.
	MRC string
	// Key verifies capabilities; storage is given it.
	Key []byte
	// Alive is how long ago an OSD may have been heard of to get new files;
	// 30 s.
	Alive time.Duration
	Now   func() time.Time
}

// Format makes an empty volume within a transaction: mrc.Service.
type Format interface {
	Format(t kv.Txn, v mrc.Volume) error
}

// Service is the directory. It implements mrc.Storage and mrc.Volumes; Handler
// gives its public service.
type Service struct {
	cfg    Config
	db     kv.Store
	format Format
}

var (
	_ mrc.Storage = (*Service)(nil)
	_ mrc.Volumes = (*Service)(nil)
)

// New opens the directory in db.
func New(cfg Config, db kv.Store) *Service {
	if cfg.Alive == 0 {
		cfg.Alive = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, db: db}
}

// Use says what makes volumes, and the key of their capabilities: the metadata
// service, which is made after the directory that it depends on.
func (s *Service) Use(f Format, key []byte) { s.format, s.cfg.Key = f, key }

const (
	volumePrefix = "xfs/dir/volume/"
	osdPrefix    = "xfs/dir/osd/"
)

type volumeRecord struct {
	Owner   string    `json:"owner"`
	Object  int64     `json:"object"`
	Created time.Time `json:"created"`
}

type osdRecord struct {
	Address string     `json:"address"`
	Total   int64      `json:"total"`
	Free    int64      `json:"free"`
	Seen    time.Time  `json:"seen"`
	Node    xos.NodeID `json:"node"`
}

func read[T any](t kv.Txn, key string) (v T, ok bool, err error) {
	data, ok, err := t.Get([]byte(key))
	if err == nil && ok {
		if err = json.Unmarshal(data, &v); err != nil {
			err = xos.Errorf(xos.Internal, "reading record %s: %w", key, err)
		}
	}
	return v, ok && err == nil, err
}

func write(t kv.Txn, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return xos.Errorf(xos.Internal, "encoding record %s: %w", key, err)
	}
	return t.Put([]byte(key), data)
}

func each[T any](t kv.Txn, prefix string, f func(name string, v T) error) error {
	return t.Range([]byte(prefix), kv.PrefixEnd([]byte(prefix)), func(key, data []byte) (bool, error) {
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return false, xos.Errorf(xos.Internal, "reading record %s: %w", key, err)
		}
		return true, f(strings.TrimPrefix(string(key), prefix), v)
	})
}

// CreateVolume makes a volume owned by an account, as XVOMS wants it: one that
// exists with this owner is no error.
func (s *Service) CreateVolume(ctx context.Context, name xos.VolumeID, owner xos.Account) error {
	_, err := s.create(ctx, name, owner, 0, true)
	return err
}

func (s *Service) create(ctx context.Context, name xos.VolumeID, owner xos.Account, object int64, again bool) (volumeRecord, error) {
	if !validVolume(string(name)) {
		return volumeRecord{}, xos.Errorf(xos.Invalid, "%.80q cannot name a volume", name)
	}
	if object == 0 {
		object = xfs.DefaultObjectSize
	}
	if object < xfs.BlockSize || object > 1<<30 || object%xfs.BlockSize != 0 {
		return volumeRecord{}, xos.Errorf(xos.Invalid, "objects of %d bytes: want a multiple of %d up to 1 GiB", object, xfs.BlockSize)
	}
	rec := volumeRecord{Owner: owner.String(), Object: object, Created: s.cfg.Now().UTC()}
	err := s.db.Update(ctx, func(t kv.Txn) error {
		old, ok, err := read[volumeRecord](t, volumePrefix+string(name))
		if err != nil {
			return err
		}
		if ok {
			if again && old.Owner == owner.String() {
				rec = old
				return nil
			}
			return xos.Errorf(xos.Exists, "volume %s exists", name)
		}
		if err := write(t, volumePrefix+string(name), rec); err != nil {
			return err
		}
		return s.format.Format(t, mrc.Volume{Name: name, Owner: owner, ObjectSize: object})
	})
	return rec, err
}

// validVolume admits parts as names are, joined by '-': "home-physics-alice".
func validVolume(s string) bool {
	if len(s) == 0 || len(s) > 3*xos.MaxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.')) {
			return false
		}
	}
	return true
}

// Volume implements mrc.Volumes.
func (s *Service) Volume(ctx context.Context, name xos.VolumeID) (v mrc.Volume, err error) {
	err = s.db.View(ctx, func(t kv.Txn) error {
		rec, ok, err := read[volumeRecord](t, volumePrefix+string(name))
		if err != nil {
			return err
		}
		if !ok {
			return xos.Errorf(xos.NotFound, "there is no volume %.80q", name)
		}
		owner, err := xos.ParseAccount(rec.Owner)
		v = mrc.Volume{Name: name, Owner: owner, ObjectSize: rec.Object}
		return err
	})
	return v, err
}

// Announce notes an OSD's life sign. An OSD's name belongs to the machine that
// first announced it.
func (s *Service) Announce(ctx context.Context, id, address string, total, free int64, node xos.NodeID) error {
	if _, _, err := net.SplitHostPort(address); err != nil || !validVolume(id) || total < 0 || free < 0 {
		return xos.Errorf(xos.Invalid, "storage %.80q at %.80q announces nonsense", id, address)
	}
	return s.db.Update(ctx, func(t kv.Txn) error {
		old, ok, err := read[osdRecord](t, osdPrefix+id)
		if err != nil {
			return err
		}
		if ok && old.Node != node {
			return xos.Errorf(xos.Permission, "storage %s belongs to %s", id, old.Node)
		}
		return write(t, osdPrefix+id, osdRecord{Address: address, Total: total, Free: free, Seen: s.cfg.Now().UTC(), Node: node})
	})
}

// Pick implements mrc.Storage: the OSD with most free space.
func (s *Service) Pick(ctx context.Context) (xfs.Target, error) {
	var best osdRecord
	var at xfs.Target
	answers := 0
	err := s.alive(ctx, func(id string, o osdRecord) {
		answers++
		if o.Free > best.Free {
			best, at = o, xfs.Target{OSD: id, Address: o.Address}
		}
	})
	switch {
	case err != nil || at.OSD != "":
	case answers > 0:
		err = xos.Errorf(xos.TooLarge, "all storage is full")
	default:
		err = xos.Errorf(xos.Unavailable, "no storage answers").WithHint("install xtreemos-storage on a machine and run xos up there; see xos volume storage")
	}
	return at, err
}

// Target implements mrc.Storage.
func (s *Service) Target(ctx context.Context, osd string) (at xfs.Target, err error) {
	err = s.db.View(ctx, func(t kv.Txn) error {
		o, ok, err := read[osdRecord](t, osdPrefix+osd)
		if err == nil && !ok {
			err = xos.Errorf(xos.Unavailable, "storage %.80q is unknown", osd)
		}
		at = xfs.Target{OSD: osd, Address: o.Address}
		return err
	})
	return at, err
}

// Space implements mrc.Storage.
func (s *Service) Space(ctx context.Context) (total, free int64, err error) {
	err = s.alive(ctx, func(_ string, o osdRecord) { total, free = total+o.Total, free+o.Free })
	return total, free, err
}

func (s *Service) alive(ctx context.Context, f func(id string, o osdRecord)) error {
	since := s.cfg.Now().Add(-s.cfg.Alive)
	return s.db.View(ctx, func(t kv.Txn) error {
		return each(t, osdPrefix, func(id string, o osdRecord) error {
			if o.Seen.After(since) {
				f(id, o)
			}
			return nil
		})
	})
}
