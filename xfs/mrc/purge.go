package mrc

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

// garbage is a file's data that is to be deleted.
type garbage struct {
	OSD   string `json:"osd"`
	Epoch uint64 `json:"e"`
}

// Dial connects to an OSD.
type Dial func(ctx context.Context, at xfs.Target) (osd xfs.OSD, close func(), err error)

// purgeSoon wakes the purger; it does not wait.
func (s *Service) purgeSoon() {
	select {
	case s.deleted <- struct{}{}:
	default:
	}
}

// Purge deletes the data of removed files on the OSDs, until ctx ends. The
// queue is in the records: what an OSD that is away does not delete now it
// deletes when it is back. node is the name in the core's certificate.
func (s *Service) Purge(ctx context.Context, node xos.NodeID, dial Dial) error {
	retry := time.NewTicker(30 * time.Second)
	defer retry.Stop()
	sweep := time.NewTicker(10 * time.Minute)
	defer sweep.Stop()
	for {
		if err := s.purgeAll(ctx, node, dial); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("deleting the data of removed files", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.deleted:
		case <-retry.C:
		case <-sweep.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("sweeping old replies and orphans", "error", err)
			}
		}
	}
}

// item is one entry of the queue.
type item struct {
	key  []byte
	file xfs.FileID
	garbage
}

// volumes lists the volumes that have records.
func (s *Service) volumes(ctx context.Context) (names []xos.VolumeID, err error) {
	prefix := []byte("xfs/v/")
	err = s.db.View(ctx, func(t kv.Txn) error {
		names = nil
		for start := prefix; ; {
			var name xos.VolumeID
			err := t.Range(start, kv.PrefixEnd(prefix), func(key, _ []byte) (bool, error) {
				for i, c := range key[len(prefix):] {
					if c == '/' {
						name = xos.VolumeID(key[len(prefix) : len(prefix)+i])
						break
					}
				}
				return false, nil
			})
			if err != nil || name == "" {
				return err
			}
			names = append(names, name)
			start = kv.PrefixEnd(append(append([]byte{}, prefix...), string(name)+"/"...))
		}
	})
	return names, err
}

const (
	purgeAtOnce     = 256
	purgeTogether   = 16
	deletionTimeout = 10 * time.Second
)

// storages are the OSDs reached in one round. One that fails once is left
// alone until the next.
type storages struct {
	dial func(osd string) (xfs.OSD, func(), error)

	mu   sync.Mutex
	open map[string]xfs.OSD // nil: away
	ends []func()
}

func (o *storages) get(osd string) xfs.OSD {
	o.mu.Lock()
	defer o.mu.Unlock()
	found, tried := o.open[osd]
	if tried {
		return found
	}
	found, end, err := o.dial(osd)
	if err != nil {
		found = nil
	} else {
		o.ends = append(o.ends, end)
	}
	o.open[osd] = found
	return found
}

func (o *storages) away(osd string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[osd] = nil
}

func (o *storages) close() {
	for _, end := range o.ends {
		end()
	}
}

func (s *Service) purgeAll(ctx context.Context, node xos.NodeID, dial Dial) error {
	names, err := s.volumes(ctx)
	if err != nil {
		return err
	}
	at := &storages{open: map[string]xfs.OSD{}, dial: func(osd string) (xfs.OSD, func(), error) {
		target, err := s.storage.Target(ctx, osd)
		if err != nil {
			return nil, nil, err
		}
		return dial(ctx, target)
	}}
	defer at.close()
	for _, name := range names {
		for after := []byte(nil); ; {
			items, err := s.queue(ctx, name, after)
			if err != nil {
				return err
			}
			if len(items) == 0 {
				break
			}
			after = items[len(items)-1].key
			done, refused := s.deleteData(ctx, node, at, items)
			// What storage has answered for is not asked again because the
			// service ends now.
			if err := s.forget(context.WithoutCancel(ctx), done); err != nil {
				return err
			}
			if refused != nil {
				s.cfg.Log.Warn("storage does not delete the data of removed files; it will be asked again", "volume", name, "error", refused)
			}
		}
	}
	return nil
}

// deleteData gives the keys of what was deleted, and one of the errors met.
func (s *Service) deleteData(ctx context.Context, node xos.NodeID, at *storages, items []item) (done [][]byte, refused error) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(purgeTogether)
	for _, it := range items {
		group.Go(func() error {
			osd := at.get(it.OSD)
			if osd == nil {
				return nil
			}
			err := s.deleteOne(ctx, node, osd, it)
			if xos.Is(err, xos.Unavailable) {
				at.away(it.OSD)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused = err
				return nil
			}
			done = append(done, it.key)
			return nil
		})
	}
	group.Wait()
	return done, refused
}

// forget takes keys out of the records.
func (s *Service) forget(ctx context.Context, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	return s.db.Update(ctx, func(t kv.Txn) error {
		for _, key := range keys {
			if err := t.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) deleteOne(ctx context.Context, node xos.NodeID, osd xfs.OSD, it item) error {
	c := xfs.Capability{File: it.file, Rights: xfs.MayDelete, Node: node, Account: "mrc", Epoch: it.Epoch, Expires: s.cfg.Now().Add(time.Minute)}
	if err := frame.Sign(&c, s.key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	return osd.Delete(ctx, c)
}

// queue gives a volume's next deletions behind a key; nil: the first.
func (s *Service) queue(ctx context.Context, volume xos.VolumeID, after []byte) (items []item, err error) {
	err = s.db.View(ctx, func(t kv.Txn) error {
		items = nil
		x := tx{t, volume}
		prefix := x.key('g')
		start := prefix
		if after != nil {
			start = append(append([]byte{}, after...), 0)
		}
		return x.Range(start, kv.PrefixEnd(prefix), func(key, value []byte) (bool, error) {
			it := item{key: append([]byte{}, key...), file: xfs.FileID{Volume: volume, Inode: xfs.Inode(binary.BigEndian.Uint64(key[len(prefix):]))}}
			if err := json.Unmarshal(value, &it.garbage); err != nil {
				return false, xos.Errorf(xos.Internal, "reading the queue of deletions: %w", err)
			}
			items = append(items, it)
			return len(items) < purgeAtOnce, nil
		})
	})
	return items, err
}
