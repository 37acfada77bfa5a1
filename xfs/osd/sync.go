package osd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// Sync makes what was written to a file durable.
func (s *Store) Sync(id xfs.FileID) error {
	f, err := s.get(id, false)
	if errors.Is(err, fs.ErrNotExist) {
		return s.unlessDeleted(id)
	}
	if err != nil {
		return err
	}
	defer s.put(f)
	f.syncing.Lock()
	defer f.syncing.Unlock()
	return s.sync([]*file{f})
}

const (
	syncTogether = 64 // files whose index is committed at once
	syncWhole    = 8  // so many files are synced by syncing the file system
)

// SyncAll makes all that was written durable.
func (s *Store) SyncAll() error {
	s.mu.Lock()
	var all []*file
	for _, f := range s.files {
		f.users++
		all = append(all, f)
	}
	s.mu.Unlock()
	var errs []error
	var group []*file
	flush := func() {
		errs = append(errs, s.sync(group))
		for _, f := range group {
			f.syncing.Unlock()
		}
		group = group[:0]
	}
	for _, f := range all {
		if f.isDirty() {
			f.syncing.Lock()
			if group = append(group, f); len(group) == syncTogether {
				flush()
			}
		}
	}
	flush()
	for _, f := range all {
		s.put(f)
	}
	return errors.Join(errs...)
}

func (f *file) isDirty() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.dirty) > 0 || len(f.freed) > 0
}

// pending is what one sync of a file makes durable.
type pending struct {
	file    *file
	entries map[place]entry
	removed []place
	freed   []int64
	fresh   bool
}

// sync makes files durable, whose syncing locks are held: their data, then
// their entries. Writes go on meanwhile.
func (s *Store) sync(files []*file) error {
	var list []*pending
	for _, f := range files {
		if p, err := f.begin(); err != nil {
			return err
		} else if p != nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := s.syncData(list)
	if err == nil {
		err = s.commit(list)
	}
	var errs []error
	for _, p := range list {
		errs = append(errs, p.end(err))
	}
	return errors.Join(errs...)
}

// begin takes what there is to make durable. From now on the slots in it count
// as led to.
func (f *file) begin() (*pending, error) {
	f.write.Lock()
	defer f.write.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, f.failed
	}
	if f.gone || len(f.dirty) == 0 && len(f.freed) == 0 {
		return nil, nil
	}
	p := &pending{file: f, entries: make(map[place]entry, len(f.dirty)), freed: f.freed, fresh: f.fresh}
	for at := range f.dirty {
		e, ok := f.at[at]
		if !ok {
			p.removed = append(p.removed, at)
			continue
		}
		e.durable, e.indexed = true, true
		f.at[at], p.entries[at] = e, e
	}
	f.dirty, f.freed, f.fresh = map[place]bool{}, nil, false
	return p, nil
}

// end frees the slots that are no longer led to, or takes all back.
func (p *pending) end(err error) error {
	f := p.file
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.free = append(f.free, p.freed...)
		return f.trim()
	}
	for at := range p.entries {
		f.dirty[at] = true
	}
	for _, at := range p.removed {
		f.dirty[at] = true
	}
	f.freed, f.fresh = append(f.freed, p.freed...), p.fresh
	if !xos.Is(err, xos.TooLarge) && f.failed == nil {
		// After a failed fsync the kernel may say yes to the next without
		// having written anything. What was synced before is intact.
		f.failed = xos.Errorf(xos.Internal, "the disk failed to keep what was written: %w", err)
	}
	return err
}

// syncData makes the files' data durable, and the names of new ones.
func (s *Store) syncData(list []*pending) error {
	if len(list) >= syncWhole {
		d, err := os.Open(s.dir)
		if err != nil {
			return diskError(err)
		}
		defer d.Close()
		if err := unix.Syncfs(int(d.Fd())); err != nil {
			return diskError(err)
		}
		return nil
	}
	for _, p := range list {
		if err := unix.Fdatasync(int(p.file.data.Fd())); err != nil {
			return diskError(err)
		}
		if p.fresh {
			dir := filepath.Dir(p.file.data.Name())
			if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
				return diskError(err)
			}
		}
	}
	return nil
}

// commit makes the files' entries durable; commits of several callers share an
// fsync.
func (s *Store) commit(list []*pending) error {
	batch := s.index.NewBatch()
	defer batch.Close()
	for _, p := range list {
		for at, e := range p.entries {
			if err := batch.Set(placeKey(p.file.id, at), e.encode(), nil); err != nil {
				return xos.Errorf(xos.Internal, "writing the index: %w", err)
			}
		}
		for _, at := range p.removed {
			if err := batch.Delete(placeKey(p.file.id, at), nil); err != nil {
				return xos.Errorf(xos.Internal, "writing the index: %w", err)
			}
		}
	}
	if batch.Empty() {
		return nil
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return diskError(err)
	}
	return nil
}
