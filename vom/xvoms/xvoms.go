// Package xvoms keeps the records of users, virtual organisations (VOs),
// memberships and machines: X-VOMS, the XtreemOS VO membership service. It
// serves administrators (VOs in api/xos/v1), and gives the certification
// authorities what they may certify.
//
// # Issue and removal
//
// Machines refuse a certificate that was issued at or before a revocation
// that concerns it. So that no certificate slips through between the reading
// of a membership and its removal, each issue is itself a transaction: it
// notes its time in the membership record, and a removal is dated no earlier
// than the last issue it saw. Whichever commits first, the other sees it;
// clocks do not matter.
//
// # The bundle's epoch
//
// Everything a machine must know of bumps the epoch in the same transaction.
package xvoms

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

// Config of the records. Zero values mean the defaults named.
type Config struct {
	// Site is this core's name, for reasons: "removed by root at core".
	Site string
	// UserTTL is the validity of users' certificates; 12 h, which is the most.
	UserTTL time.Duration
	// MachineTTL is that of machines' certificates; 30 days.
	MachineTTL time.Duration
	// Offline is how long a machine may decide without news; 24 h.
	Offline time.Duration
	// Trust is what the bundle says of authorities: X509Roots, SSHUserCAs,
	// SSHHostCAs and CoreKey.
	Trust vom.Bundle
	// Isolation checks VOs' policies of isolation; nil: VOs can have none.
	Isolation PolicyCheck
	Now       func() time.Time // time.Now
	Log       *slog.Logger     // discards
}

// MaxUserTTL bounds the validity of users' certificates and, so, for how long
// a revocation must be remembered.
const MaxUserTTL = 12 * time.Hour

// skew is added where a revocation is forgotten.
const skew = time.Hour

// Volumes makes home volumes: the part of XtreemFS's directory used here.
type Volumes interface {
	// CreateVolume makes a volume owned by an account. It is idempotent: one
	// that exists with this owner is no error.
	CreateVolume(ctx context.Context, name xos.VolumeID, owner xos.Account) error
}

// PolicyCheck says why a policy cannot be a VO's, or nil.
type PolicyCheck func(policy string) error

// Records implements the records on a kv store. It is safe for concurrent use.
type Records struct {
	cfg     Config
	db      kv.Store
	volumes Volumes
	policy  PolicyCheck
	guesses *guesses
	hashing chan struct{} // bounds the memory of concurrent password checks
	bundle  atomic.Pointer[vom.Bundle]
	refresh sync.Mutex
	changed chan uint64
	heard   heard
}

// New opens the records in db. volumes may be nil: members then have no home.
// It writes the trust of cfg, so that a change of authorities is a new epoch.
func New(ctx context.Context, cfg Config, db kv.Store, volumes Volumes, policy PolicyCheck) (*Records, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.UserTTL, MaxUserTTL)
	def(&cfg.MachineTTL, 30*24*time.Hour)
	def(&cfg.Offline, 24*time.Hour)
	if cfg.UserTTL > MaxUserTTL {
		return nil, xos.Errorf(xos.Invalid, "users' certificates of %v: at most %v", cfg.UserTTL, MaxUserTTL)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Site == "" {
		cfg.Site = "core"
	}
	r := &Records{cfg: cfg, db: db, volumes: volumes, policy: policy, guesses: newGuesses(),
		hashing: make(chan struct{}, 2), changed: make(chan uint64, 1)}
	trust, err := json.Marshal([]any{cfg.Trust.X509Roots, cfg.Trust.SSHUserCAs, cfg.Trust.SSHHostCAs, cfg.Trust.CoreKey, cfg.Offline})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(trust)
	err = db.Update(ctx, func(t kv.Txn) error {
		old, ok, err := t.Get([]byte(keyTrust))
		if err != nil || ok && string(old) == string(sum[:]) {
			return err
		}
		if err := t.Put([]byte(keyTrust), sum[:]); err != nil {
			return err
		}
		return bump(t)
	})
	if err != nil {
		return nil, err
	}
	return r, r.Refresh(ctx)
}

// Run follows changes by other cores and forgets what has expired, until ctx
// ends.
func (r *Records) Run(ctx context.Context) error {
	sweep := time.NewTicker(10 * time.Minute)
	defer sweep.Stop()
	poll := time.NewTicker(2 * time.Second)
	defer poll.Stop()
	if err := r.revokeBannedKeys(ctx); err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("cannot end what banned keys have left", "error", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			if err := r.Refresh(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Log.Warn("cannot read the bundle", "error", err)
			}
		case <-sweep.C:
			if err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Log.Warn("cannot remove expired records", "error", err)
			}
		}
	}
}

// Changed is signalled with the new epoch whenever the bundle has changed, by
// this core or another; only the latest is kept.
func (r *Records) Changed() <-chan uint64 { return r.changed }
