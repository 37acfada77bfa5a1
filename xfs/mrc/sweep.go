package mrc

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
)

// sweepAtOnce bounds a sweep's transactions.
const sweepAtOnce = 1000

// Sweep forgets old replies and erases orphans that nobody released. It looks
// on snapshots and then deletes without reading, so that it is in nobody's way.
func (s *Service) Sweep(ctx context.Context) error {
	names, err := s.volumes(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.sweepReplies(ctx, name); err != nil {
			return err
		}
		if err := s.sweepOrphans(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) sweepReplies(ctx context.Context, volume xos.VolumeID) error {
	than := s.cfg.Now().Add(-replyTTL).UnixNano()
	for after := []byte(nil); ; {
		old, last, err := s.olderThan(ctx, volume, 'r', after, than, func(b []byte) (at int64, err error) {
			var r reply
			err = json.Unmarshal(b, &r)
			return r.At, err
		})
		if err != nil {
			return err
		}
		if err := s.forget(ctx, old); err != nil {
			return err
		}
		if last == nil {
			return nil
		}
		after = last
	}
}

func (s *Service) sweepOrphans(ctx context.Context, volume xos.VolumeID) error {
	than := s.cfg.Now().Add(-s.cfg.OrphanTTL).UnixNano()
	for after := []byte(nil); ; {
		old, last, err := s.olderThan(ctx, volume, 'o', after, than, func(b []byte) (at int64, err error) {
			err = json.Unmarshal(b, &at)
			return at, err
		})
		if err != nil {
			return err
		}
		for _, key := range old {
			if err := s.eraseOrphan(ctx, volume, key, than); err != nil {
				return err
			}
		}
		if last == nil {
			return nil
		}
		after = last
	}
}

// eraseOrphan erases one, unless it was used or released meanwhile.
func (s *Service) eraseOrphan(ctx context.Context, volume xos.VolumeID, key []byte, than int64) error {
	return s.db.Update(ctx, func(t kv.Txn) error {
		x := tx{t, volume}
		since, kept, err := get[int64](x, key)
		if err != nil || !kept || since >= than {
			return err
		}
		ino := xfs.Inode(binary.BigEndian.Uint64(key[len(key)-8:]))
		n, err := x.need(ino)
		if err != nil {
			return err
		}
		return x.erase(ino, n)
	})
}

// olderThan gives the keys of records of a kind whose time is before than, a
// bounded number behind a key, and the key to go on from; nil at the end.
func (s *Service) olderThan(ctx context.Context, volume xos.VolumeID, kind byte, after []byte, than int64, at func([]byte) (int64, error)) (keys [][]byte, last []byte, err error) {
	err = s.db.View(ctx, func(t kv.Txn) error {
		keys, last = nil, nil
		prefix := tx{t, volume}.key(kind)
		start := prefix
		if after != nil {
			start = append(append([]byte{}, after...), 0)
		}
		return t.Range(start, kv.PrefixEnd(prefix), func(key, value []byte) (bool, error) {
			when, err := at(value)
			if err != nil {
				return false, xos.Errorf(xos.Internal, "reading a record of volume %s: %w", volume, err)
			}
			if when < than {
				keys = append(keys, append([]byte{}, key...))
			}
			if len(keys) < sweepAtOnce {
				return true, nil
			}
			last = keys[len(keys)-1]
			return false, nil
		})
	})
	return keys, last, err
}
