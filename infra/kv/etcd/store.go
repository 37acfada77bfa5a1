// Package etcd implements kv on etcd, for records that several machines share
// and that outlive any one of them.
//
// # Serializability
//
// A transaction reads at one etcd revision R (that of its first read) and is
// committed by one etcd transaction, whose comparisons say that nothing it
// read has changed since:
//
//   - A key that was read, or was missing, still has the modification revision
//     it had (0 when missing).
//   - A range that was read has no key modified after R. That finds records
//     that came or changed, but not those that went.
//   - So whoever deletes a key writes a mark, the same key in a space of its
//     own, and the range of marks must have none modified after R either.
//   - A key also goes, without anybody's mark, when its lease ends. So each
//     leased key seen in a range is compared like a single key; and a leased
//     put writes a mark too, which catches a key that came, or got its lease,
//     and went, all after R.
//
// Thus a range costs two comparisons however many records it has. The marks
// are held by a lease of their own and vanish by themselves; none vanishes
// within maxAge, and a transaction older than that is not committed but run
// again. Every client of the same records must keep these rules: write them
// through this package only.
//
// # Limits
//
// etcd refuses a transaction with more than --max-txn-ops comparisons or
// writes (128 unless told otherwise) and requests above --max-request-bytes.
// Config must say what the servers allow.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/overlay"
)

// Config says where the servers are.
type Config struct {
	// Endpoints are URLs, https://host:2379.
	Endpoints []string
	// TLS may be nil only if all endpoints are on loopback.
	TLS *tls.Config
	// Prefix sets our keys apart from others' in the same servers.
	Prefix string
	// MaxTxnOps and MaxRequestBytes are the servers' flags of these names;
	// 0 means etcd's own defaults, 128 and 1.5 MiB.
	MaxTxnOps       int
	MaxRequestBytes int
	Log             *slog.Logger // discards
}

const (
	defaultTxnOps       = 128
	defaultRequestBytes = 3 << 19
	maxKey              = 16 << 10
)

// Store implements kv.Store.
type Store struct {
	client *clientv3.Client
	log    *slog.Logger
	data   string // prefix of records
	marks  string // prefix of marks
	limits kv.Limits
	maxOps int
	owned  bool // the client is ours to close
	mark   markLease

	mu     sync.Mutex
	closed bool
	users  sync.WaitGroup
	ctx    context.Context // ends at Close: the lifetime of watches
	end    context.CancelFunc
}

var _ kv.Store = (*Store)(nil)

// Open connects to servers and fails with xos.Unavailable if none answers
// before ctx ends. The caller must Close the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, Logger: zap.NewNop(),
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize: 64 << 20,
	})
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "open the records in etcd: %w", err)
	}
	s := newStore(client, cfg, true)
	if _, err := client.Get(ctx, s.data, clientv3.WithCountOnly()); err != nil {
		return nil, errors.Join(s.failed("open the records in etcd", err), s.Close())
	}
	return s, nil
}

// check refuses to send records in clear over a network.
func (cfg Config) check() error {
	if len(cfg.Endpoints) == 0 {
		return xos.Errorf(xos.Invalid, "no etcd endpoint is given")
	}
	for _, e := range cfg.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return xos.Errorf(xos.Invalid, "%q is no etcd endpoint: want https://HOST:PORT", e)
		}
		if addr, err := netip.ParseAddr(u.Hostname()); u.Scheme == "https" && cfg.TLS != nil || err == nil && addr.IsLoopback() {
			continue
		}
		return xos.Errorf(xos.Invalid, "the etcd endpoint %s is reached without TLS", e).WithHint("use https and give certificates")
	}
	return nil
}

func newStore(client *clientv3.Client, cfg Config, owned bool) *Store {
	if cfg.MaxTxnOps == 0 {
		cfg.MaxTxnOps = defaultTxnOps
	}
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = defaultRequestBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	bytes := cfg.MaxRequestBytes * 2 / 3 // the rest for what wraps them, and for comparisons
	s := &Store{
		client: client, log: cfg.Log, owned: owned,
		data: cfg.Prefix + "d/", marks: cfg.Prefix + "m/", maxOps: cfg.MaxTxnOps,
		limits: kv.Limits{
			Key: maxKey, Value: bytes - maxKey, TxnBytes: bytes,
			TxnOps: cfg.MaxTxnOps / 2, // a deletion makes two, a range two comparisons
		},
	}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// Limits implements kv.Store.
func (s *Store) Limits() kv.Limits { return s.limits }

// View implements kv.Store.
func (s *Store) View(ctx context.Context, f func(kv.Txn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.retry(ctx, "read records", func() (bool, error) {
		snap := &snapshot{s: s, ctx: ctx}
		txn := overlay.New(snap, s.limits, false)
		defer txn.End()
		err := f(txn)
		if snap.lost {
			return false, nil
		}
		if err == nil {
			err = snap.err
		}
		return true, err
	})
}

// Update implements kv.Store.
func (s *Store) Update(ctx context.Context, f func(kv.Txn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.retry(ctx, "change records", func() (bool, error) { return s.attempt(ctx, f) })
}

func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return xos.Errorf(xos.Unavailable, "the record store is closed")
	}
	s.users.Add(1)
	return nil
}

// Close waits for calls in flight and ends all watches.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.end()
	s.users.Wait()
	if !s.owned {
		return nil
	}
	if err := s.client.Close(); err != nil {
		return xos.Errorf(xos.Internal, "close the records: %w", err)
	}
	return nil
}

// failed gives an error of etcd its kind. What is not known to be refused may
// have happened: Unavailable.
func (s *Store) failed(what string, err error) error {
	kind := xos.Unavailable
	switch e := rpctypes.Error(err); {
	case errors.Is(e, rpctypes.ErrLeaseNotFound):
		return xos.Errorf(xos.Expired, "%s: the lease has ended", what)
	case errors.Is(e, rpctypes.ErrRequestTooLarge), errors.Is(e, rpctypes.ErrTooManyOps), errors.Is(e, rpctypes.ErrNoSpace):
		kind = xos.TooLarge
	case status.Code(err) == codes.ResourceExhausted:
		kind = xos.TooLarge
	case errors.Is(e, rpctypes.ErrPermissionDenied):
		kind = xos.Permission
	}
	return xos.Errorf(kind, "%s: %w", what, err)
}
