// Package pebble implements kv on Pebble, an LSM tree embedded in the process:
// the default engine of one machine.
//
// # Visibility and durability
//
// Pebble shows a batch to readers as soon as it is in the memtable, before its
// log record is on the disk. This package never lets that show:
//
//   - Commits are serialized: validate, append to the log, apply, all under
//     one short mutex that is not held during the fsync. Each commit makes one
//     version, that is, a revision and the Pebble snapshot of exactly it.
//   - View reads the newest durable version, so what it sees cannot be lost.
//     An Update that was acknowledged is durable, so every later View sees it.
//   - Update reads the newest applied version, durable or not: else all
//     writers of a hot key would wait for one another's fsync. That is sound,
//     because the log is sequential: if its own record survives a crash, all
//     it has read does too. An Update that wrote nothing, or whose function
//     failed, waits until what it read is durable before it says so.
//   - Watch shows a commit only when it is durable.
//
// Many writers wait for the same fsync (group commit). If one ever fails the
// store answers Unavailable from then on: after a failed fsync nobody knows
// what is on the disk, and only a new start, which reads the log, tells.
//
// # Serializability
//
// A commit is refused if any commit since its snapshot wrote a key it read, or
// a key inside a range it read (infra/kv/overlay keeps both). The recent write
// sets are those that Watch replays from: a bounded history in memory. A
// transaction older than the history runs again.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/overlay"
)

// Config says where the records are and how much is kept in memory. Zero
// values mean the defaults named.
type Config struct {
	Dir string
	FS  vfs.FS       // the operating system's
	Log *slog.Logger // discards
	// CacheBytes is for blocks read; 32 MiB.
	CacheBytes int64
	// HistoryBytes of recent changes, for watchers that fall behind and for
	// validation; 16 MiB.
	HistoryBytes int
	Now          func() time.Time // time.Now; decides when a lease ends
}

var limits = kv.Limits{Key: 16 << 10, Value: 8 << 20, TxnBytes: 32 << 20}

// Store implements kv.Store.
type Store struct {
	db  *pebble.DB
	log *slog.Logger
	now func() time.Time

	commitMu sync.Mutex // held from validation to application; taken before mu

	mu      sync.Mutex
	latest  *version // newest applied
	durable *version // newest fsynced
	broken  error    // a failed fsync
	closed  bool
	history history
	changed chan struct{} // closed and replaced when durable moves or the store ends

	users  sync.WaitGroup // calls and watchers in flight
	leases leases
	ctx    context.Context // ends at Close: the lifetime of the goroutines
	end    context.CancelFunc
}

var _ kv.Store = (*Store)(nil)

// Open opens, or makes, the store in directory dir. The caller must Close it.
func Open(dir string, log *slog.Logger) (kv.Store, error) {
	return OpenConfig(Config{Dir: dir, Log: log})
}

// OpenMemory makes an empty store that vanishes with Close.
func OpenMemory() (kv.Store, error) {
	return OpenConfig(Config{Dir: "kv", FS: vfs.NewMem()})
}

// OpenConfig is Open with every choice.
func OpenConfig(cfg Config) (*Store, error) {
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 32 << 20
	}
	if cfg.HistoryBytes == 0 {
		cfg.HistoryBytes = 16 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "open the records in %s: %w", cfg.Dir, err)
	}
	cache := pebble.NewCache(cfg.CacheBytes)
	defer cache.Unref() // the database holds its own reference
	opts := &pebble.Options{
		FS: cfg.FS, Cache: cache, Logger: logger{cfg.Log},
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "open the records in %s: %w", cfg.Dir, err)
	}
	s := &Store{db: db, log: cfg.Log, now: cfg.Now, changed: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(context.Background())
	if err := s.recover(cfg.HistoryBytes); err != nil {
		s.end()
		return nil, errors.Join(err, db.Close())
	}
	s.users.Add(1)
	go s.expireLeases()
	return s, nil
}

// recover reads what the last process left: the revision and the leases.
func (s *Store) recover(historyBytes int) error {
	snap := s.db.NewSnapshot()
	rev := kv.Revision(1) // 0 means "now" to Watch
	switch raw, closer, err := snap.Get(revisionKey); {
	case err == nil:
		if len(raw) != 8 {
			err = fmt.Errorf("a revision of %d bytes", len(raw))
		} else {
			rev = kv.Revision(binary.BigEndian.Uint64(raw))
		}
		if err = errors.Join(err, closer.Close()); err != nil {
			return xos.Errorf(xos.Internal, "read the records' revision: %w", errors.Join(err, snap.Close()))
		}
	case !errors.Is(err, pebble.ErrNotFound):
		return xos.Errorf(xos.Internal, "read the records' revision: %w", errors.Join(err, snap.Close()))
	}
	s.latest = &version{rev: rev, snap: snap, refs: 2} // latest and durable
	s.durable = s.latest
	s.history = history{floor: rev, limit: historyBytes}
	if err := s.leases.load(snap, s.now()); err != nil {
		return errors.Join(err, snap.Close())
	}
	return nil
}

// Limits implements kv.Store.
func (s *Store) Limits() kv.Limits { return limits }

// View implements kv.Store.
func (s *Store) View(ctx context.Context, f func(kv.Txn) error) error {
	if err := ctx.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "read records: %w", err)
	}
	v, err := s.enter(func() *version { return s.durable })
	if err != nil {
		return err
	}
	defer s.leave(v)
	txn := overlay.New(v, limits, false)
	defer txn.End()
	return f(txn)
}

// enter begins a call on a version, which leave ends.
func (s *Store) enter(which func() *version) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, err
	}
	s.users.Add(1)
	v := which()
	v.refs++
	return v, nil
}

func (s *Store) leave(v *version) {
	s.mu.Lock()
	s.releaseLocked(v)
	s.mu.Unlock()
	s.users.Done()
}

func (s *Store) usableLocked() error {
	if s.closed {
		return xos.Errorf(xos.Unavailable, "the record store is closed")
	}
	if s.broken != nil {
		return xos.Errorf(xos.Unavailable, "the record store failed and must be started anew: %w", s.broken)
	}
	return nil
}

// Close waits for calls in flight, ends all watches and closes the database.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.signalLocked()
	s.mu.Unlock()
	s.end()
	s.users.Wait()
	s.mu.Lock()
	s.releaseLocked(s.latest)
	s.releaseLocked(s.durable)
	s.mu.Unlock()
	if err := s.db.Close(); err != nil {
		return xos.Errorf(xos.Internal, "close the records: %w", err)
	}
	return nil
}

// logger passes Pebble's own messages on. Fatalf must not return: Pebble calls
// it when its state and the disk's may differ, and stopping is the only safe
// thing then.
type logger struct{ log *slog.Logger }

func (l logger) Infof(f string, a ...any)  { l.log.Debug(fmt.Sprintf(f, a...), "from", "pebble") }
func (l logger) Errorf(f string, a ...any) { l.log.Error(fmt.Sprintf(f, a...), "from", "pebble") }
func (l logger) Fatalf(f string, a ...any) { panic("pebble: " + fmt.Sprintf(f, a...)) }
