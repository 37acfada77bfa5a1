package xvoms

import (
	"context"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type revocationRecord struct {
	vom.Revocation
	// Until is when the last certificate that it could concern has expired.
	Until time.Time `json:"until"`
	// Of one with a fate: what she had, without which she does not come back as
	// who she was, and what was revoked of hers before.
	Groups []xos.GroupName `json:"groups,omitempty"`
	Roles  []xos.RoleName  `json:"roles,omitempty"`
	Prior  *vom.Revocation `json:"prior,omitempty"`
}

// revoke writes a revocation of certificates that are valid for at most ttl.
// what is its kind and subject; a newer one for the same replaces it, since it
// refuses all that the older one did.
func (r *Records) revoke(t kv.Txn, what string, rev vom.Revocation, ttl time.Duration) error {
	return r.revokeMember(t, what, rev, ttl, memberRecord{})
}

// revokeMember is revoke of one that may be undone: see restore.
func (r *Records) revokeMember(t kv.Txn, what string, rev vom.Revocation, ttl time.Duration, m memberRecord) error {
	old, ok, err := read[revocationRecord](t, prefixRevoked+what)
	if err != nil {
		return err
	}
	rec := revocationRecord{Revocation: rev}
	if ok {
		rec.Before = later(rev.Before, old.Before)
	}
	if rev.Fate != "" {
		rec.Groups, rec.Roles = m.Groups, m.Roles
		if ok && old.Fate == "" {
			rec.Prior = &old.Revocation
		} else if ok {
			rec.Prior = old.Prior
		}
	}
	rec.Until = rec.Before.Add(ttl + skew)
	return write(t, prefixRevoked+what, rec)
}

// floor gives the time after which a certificate for an account must be
// issued so that no revocation refuses it.
func floor(t kv.Txn, a xos.Account) (time.Time, error) {
	var f time.Time
	for _, what := range []string{"user/" + string(a.User), "vo/" + string(a.VO), "account/" + string(a.VO) + "/" + string(a.User)} {
		rev, ok, err := read[revocationRecord](t, prefixRevoked+what)
		if err != nil {
			return f, err
		}
		if ok {
			f = later(f, rev.Before)
		}
	}
	return f, nil
}

// Revoke ends one certificate, with its companion of the same serial and all
// delegated from it.
func (r *Records) Revoke(ctx context.Context, serial string, issued time.Time, reason string) error {
	return r.change(ctx, func(t kv.Txn) error {
		rev := vom.Revocation{Serial: serial, Before: later(r.now(), issued), Reason: reason}
		if err := r.revoke(t, "serial/"+serial, rev, max(r.cfg.MachineTTL, MaxUserTTL)); err != nil {
			return err
		}
		return bump(t)
	})
}

// IsRevoked reports whether one certificate was ended by Revoke.
func (r *Records) IsRevoked(ctx context.Context, serial string) (revoked bool, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		_, revoked, err = read[revocationRecord](t, prefixRevoked+"serial/"+serial)
		return err
	})
	return revoked, err
}

// sweepBatch keeps a sweep's transactions within every engine's limits.
const sweepBatch = 50

// Sweep ends what banned keys have left, and removes what has expired:
// revocations, bans, tokens, notes of issues. That is no change of the bundle,
// which leaves out already what has expired.
func (r *Records) Sweep(ctx context.Context) error {
	if err := r.revokeBannedKeys(ctx); err != nil {
		return err
	}
	now := r.now()
	var dead []string
	err := r.db.View(ctx, func(t kv.Txn) error {
		dead = nil
		gone := func(prefix, rest string, end time.Time) {
			if now.After(end) {
				dead = append(dead, prefix+rest)
			}
		}
		if err := each(t, prefixRevoked, func(k string, v revocationRecord) error { gone(prefixRevoked, k, v.Until); return nil }); err != nil {
			return err
		}
		if err := each(t, prefixBan, func(k string, b vom.Ban) error {
			if !b.Until.IsZero() {
				gone(prefixBan, k, b.Until)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := each(t, prefixToken, func(k string, v tokenRecord) error { gone(prefixToken, k, v.Expires); return nil }); err != nil {
			return err
		}
		if err := each(t, prefixJoin, func(k string, v joinRecord) error { gone(prefixJoin, k, v.Expires); return nil }); err != nil {
			return err
		}
		return each(t, prefixIssued, func(k string, v issuedRecord) error { gone(prefixIssued, k, v.NotAfter.Add(keepIssued)); return nil })
	})
	if err != nil {
		return err
	}
	for len(dead) > 0 {
		n := min(len(dead), sweepBatch)
		err := r.db.Update(ctx, func(t kv.Txn) error {
			for _, k := range dead[:n] {
				// One that was written anew since is not dead.
				v, ok, err := read[struct {
					Until    time.Time `json:"until"`
					Expires  time.Time `json:"expires"`
					NotAfter time.Time `json:"not_after"`
				}](t, k)
				if err != nil {
					return err
				}
				lasting := v.Until.IsZero() && strings.HasPrefix(k, prefixBan)
				if !ok || lasting || now.Before(v.Until) || now.Before(v.Expires) || now.Before(v.NotAfter.Add(keepIssued)) {
					continue
				}
				if err := t.Delete([]byte(k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		dead = dead[n:]
	}
	return nil
}
