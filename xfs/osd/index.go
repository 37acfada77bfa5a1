package osd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// The index has two kinds of keys:
//
//	b FILE OBJECT BLOCK   where a block is: slot, length, CRC32C
//	d FILE                the file was deleted: when
//
// FILE is the volume's name behind its length, and the inode.

// place names a block of a file: its object and its number in it.
type place struct {
	object uint64
	block  uint32
}

// entry is where a block is.
type entry struct {
	slot   int64
	length int32
	sum    uint32
	// durable: the index on disk leads here, or a sync under way may make it.
	durable bool
	// indexed: the index on disk has some entry of this place.
	indexed bool
}

func fileKey(kind byte, id xfs.FileID) []byte {
	k := []byte{kind, byte(len(id.Volume))}
	k = append(k, id.Volume...)
	return binary.BigEndian.AppendUint64(k, uint64(id.Inode))
}

func placeKey(id xfs.FileID, p place) []byte {
	k := binary.BigEndian.AppendUint64(fileKey('b', id), p.object)
	return binary.BigEndian.AppendUint32(k, p.block)
}

// placesEnd is behind all of a file's keys of places.
func placesEnd(id xfs.FileID) []byte {
	return append(placeKey(id, place{^uint64(0), ^uint32(0)}), 0)
}

func (e entry) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.slot))
	b = binary.BigEndian.AppendUint32(b, uint32(e.length))
	return binary.BigEndian.AppendUint32(b, e.sum)
}

func decodeEntry(v []byte) (entry, error) {
	if len(v) != 16 {
		return entry{}, xos.Errorf(xos.Internal, "an entry of the index has %d bytes", len(v))
	}
	e := entry{slot: int64(binary.BigEndian.Uint64(v)), length: int32(binary.BigEndian.Uint32(v[8:])),
		sum: binary.BigEndian.Uint32(v[12:]), durable: true, indexed: true}
	if e.slot < 0 || e.length < 0 || e.length > xfs.BlockSize {
		return entry{}, xos.Errorf(xos.Internal, "an entry of the index leads to %d bytes in slot %d", e.length, e.slot)
	}
	return e, nil
}

// each calls f for the index's keys in a range.
func (s *Store) each(start, end []byte, f func(key, value []byte) error) error {
	it, err := s.index.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return xos.Errorf(xos.Internal, "reading the index: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return xos.Errorf(xos.Internal, "reading the index: %w", err)
	}
	return nil
}

// places reads where a file's blocks are.
func (s *Store) places(id xfs.FileID) (map[place]entry, error) {
	at := map[place]entry{}
	prefix := len(fileKey('b', id))
	return at, s.each(fileKey('b', id), placesEnd(id), func(key, value []byte) error {
		if len(key) != prefix+12 {
			return xos.Errorf(xos.Internal, "the index of inode %d of %s is malformed", id.Inode, id.Volume)
		}
		e, err := decodeEntry(value)
		at[place{binary.BigEndian.Uint64(key[prefix:]), binary.BigEndian.Uint32(key[prefix+8:])}] = e
		return err
	})
}

// measure counts the blocks that are in use.
func (s *Store) measure() error {
	blocks := int64(0)
	err := s.each([]byte{'b'}, []byte{'b' + 1}, func(_, _ []byte) error {
		blocks++
		return nil
	})
	s.used.Store(blocks * xfs.BlockSize)
	return err
}

// path is where a file's data is.
func (s *Store) path(id xfs.FileID) string {
	return filepath.Join(s.dir, "data", fmt.Sprintf("%02x", byte(id.Inode)), fmt.Sprintf("%s@%x", id.Volume, uint64(id.Inode)))
}

func parseName(name string) (id xfs.FileID, ok bool) {
	volume, number, ok := strings.Cut(name, "@")
	inode, err := strconv.ParseUint(number, 16, 64)
	return xfs.FileID{Volume: xos.VolumeID(volume), Inode: xfs.Inode(inode)}, ok && err == nil
}

// removeStrays removes data files that the index does not lead into: a crash
// came before they were synced, or while they were being deleted.
func (s *Store) removeStrays() error {
	it, err := s.index.NewIter(&pebble.IterOptions{LowerBound: []byte{'b'}, UpperBound: []byte{'b' + 1}})
	if err != nil {
		return err
	}
	err = filepath.WalkDir(filepath.Join(s.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		id, ok := parseName(d.Name())
		if !ok {
			return nil // not ours
		}
		prefix := fileKey('b', id)
		if it.SeekGE(prefix) && strings.HasPrefix(string(it.Key()), string(prefix)) {
			return nil
		}
		return os.Remove(path)
	})
	return errors.Join(err, it.Error(), it.Close())
}

// deletedFor is for how long a deleted file is remembered: much longer than
// the capabilities are good that could be used to write to it once more.
const deletedFor = 24 * time.Hour

func (s *Store) isDeleted(id xfs.FileID) (bool, error) {
	_, closer, err := s.index.Get(fileKey('d', id))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, xos.Errorf(xos.Internal, "reading the index: %w", err)
	}
	return true, closer.Close()
}

// unlessDeleted is nil for a file that has no data, an error for one that had.
func (s *Store) unlessDeleted(id xfs.FileID) error {
	deleted, err := s.isDeleted(id)
	if err == nil && deleted {
		err = errDeleted
	}
	return err
}

// markDeleted adds the note that a file was deleted to a batch.
func markDeleted(b *pebble.Batch, id xfs.FileID) error {
	return b.Set(fileKey('d', id), binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())), nil)
}

// forgetDeleted drops notes of deletions that nobody can need any more.
func (s *Store) forgetDeleted(now time.Time) error {
	batch := s.index.NewBatch()
	defer batch.Close()
	err := s.each([]byte{'d'}, []byte{'d' + 1}, func(key, value []byte) error {
		if len(value) == 8 && now.Sub(time.Unix(int64(binary.BigEndian.Uint64(value)), 0)) < deletedFor {
			return nil
		}
		return batch.Delete(key, nil)
	})
	if err != nil || batch.Empty() {
		return err
	}
	return batch.Commit(pebble.NoSync)
}
