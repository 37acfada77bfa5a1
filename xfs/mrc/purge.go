package mrc

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

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

func decodeDirent(b []byte) (d dirent, err error) {
	if err = json.Unmarshal(b, &d); err != nil {
		err = xos.Errorf(xos.Internal, "reading a directory entry: %w", err)
	}
	return d, err
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
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
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

const purgeAtOnce = 256

func (s *Service) purgeAll(ctx context.Context, node xos.NodeID, dial Dial) error {
	names, err := s.volumes(ctx)
	if err != nil {
		return err
	}
	open := map[string]xfs.OSD{} // nil: away
	for _, name := range names {
		for {
			items, err := s.queue(ctx, name)
			if err != nil {
				return err
			}
			done := items[:0:0]
			for _, it := range items {
				osd, tried := open[it.OSD]
				if !tried {
					at, err := s.storage.Target(ctx, it.OSD)
					if err == nil {
						var end func()
						if osd, end, err = dial(ctx, at); err == nil {
							defer end()
						}
					}
					if err != nil {
						osd = nil
					}
					open[it.OSD] = osd
				}
				if osd != nil && s.deleteOne(ctx, node, osd, it) == nil {
					done = append(done, it)
				}
			}
			if len(done) == 0 {
				break
			}
			err = s.db.Update(ctx, func(t kv.Txn) error {
				for _, it := range done {
					if err := t.Delete(it.key); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) deleteOne(ctx context.Context, node xos.NodeID, osd xfs.OSD, it item) error {
	c := xfs.Capability{File: it.file, Rights: xfs.MayDelete, Node: node, Account: "mrc", Epoch: it.Epoch, Expires: s.cfg.Now().Add(time.Minute)}
	if err := frame.Sign(&c, s.key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return osd.Delete(ctx, c)
}

func (s *Service) queue(ctx context.Context, volume xos.VolumeID) (items []item, err error) {
	err = s.db.View(ctx, func(t kv.Txn) error {
		items = nil
		x := tx{t, volume}
		prefix := x.key('g')
		return x.Range(prefix, kv.PrefixEnd(prefix), func(key, value []byte) (bool, error) {
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

// sweep forgets old replies and erases orphans that nobody released.
func (s *Service) sweep(ctx context.Context) error {
	names, err := s.volumes(ctx)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	for _, name := range names {
		err := s.db.Update(ctx, func(t kv.Txn) error {
			x := tx{t, name}
			old, err := x.olderThan(x.key('r'), now.Add(-replyTTL).UnixNano(), func(b []byte) (at int64, err error) {
				var r reply
				err = json.Unmarshal(b, &r)
				return r.At, err
			})
			if err != nil {
				return err
			}
			for _, key := range old {
				if err := x.Delete(key); err != nil {
					return err
				}
			}
			prefix := x.key('o')
			orphans, err := x.olderThan(prefix, now.Add(-s.cfg.OrphanTTL).UnixNano(), func(b []byte) (at int64, err error) {
				err = json.Unmarshal(b, &at)
				return at, err
			})
			if err != nil {
				return err
			}
			for _, key := range orphans {
				ino := xfs.Inode(binary.BigEndian.Uint64(key[len(prefix):]))
				n, err := x.need(ino)
				if err != nil {
					return err
				}
				if err := (&view{Service: s}).erase(x, ino, n); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepAtOnce bounds a sweep's transaction.
const sweepAtOnce = 1000

func (x tx) olderThan(prefix []byte, than int64, at func([]byte) (int64, error)) (keys [][]byte, err error) {
	err = x.Range(prefix, kv.PrefixEnd(prefix), func(key, value []byte) (bool, error) {
		when, err := at(value)
		if err != nil {
			return false, xos.Errorf(xos.Internal, "reading a record of volume %s: %w", x.volume, err)
		}
		if when < than {
			keys = append(keys, append([]byte{}, key...))
		}
		return len(keys) < sweepAtOnce, nil
	})
	return keys, err
}
