package xvoms

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

// SetRemoval says what becomes of what removed members of a VO have running.
func (r *Records) SetRemoval(ctx context.Context, vo xos.VOName, p vom.Removal) (vom.Removal, error) {
	if p.For == 0 && (p.Fate == vom.FateFreeze || p.Fate == vom.FateFinish) {
		p.For = vom.DefaultGrace
	}
	if err := p.Check(); err != nil {
		return p, err
	}
	if p.Fate == vom.FateEnd {
		p.Fate = "" // the default
	}
	return p, r.edit(ctx, vo, func(v *voRecord) { v.Removal = p })
}

// A VO's time without news: longer than machines need to hear that there are
// none, and bounded; the core's own is what counts.
const (
	minOffline = 30 * time.Second
	maxOffline = 365 * 24 * time.Hour
)

// SetOffline says how long machines may serve a VO without news; 0: as long as
// the core's configuration says, which bounds it in any case.
func (r *Records) SetOffline(ctx context.Context, vo xos.VOName, d time.Duration) error {
	if d < 0 || d > 0 && d < minOffline || d > maxOffline {
		return xos.Errorf(xos.Invalid, "%v is no time to go without news: from %v to %v, or 0", d, minOffline, maxOffline)
	}
	return r.edit(ctx, vo, func(v *voRecord) { v.Offline = d })
}

// edit changes a VO's record, which every machine hears of.
func (r *Records) edit(ctx context.Context, vo xos.VOName, f func(*voRecord)) error {
	return r.change(ctx, func(t kv.Txn) error {
		v, ok, err := read[voRecord](t, keyVO(vo))
		if err != nil || !ok {
			return or(err, noVO(vo))
		}
		f(&v)
		if err := write(t, keyVO(vo), v); err != nil {
			return err
		}
		return bump(t)
	})
}

// farewell is the revocation of a removed member by her VO's policy, or by what
// the one who removes her says.
func farewell(rev vom.Revocation, policy vom.Removal, fate vom.Fate) (vom.Revocation, error) {
	switch fate {
	case "":
	case vom.FateEnd:
		policy = vom.Removal{}
	default:
		if policy.Fate != fate {
			policy = vom.Removal{Fate: fate, For: vom.DefaultGrace}
		}
	}
	if err := policy.Check(); err != nil {
		return rev, err
	}
	if policy.Fate == vom.FateFreeze || policy.Fate == vom.FateFinish {
		rev.Fate, rev.Grace = policy.Fate, rev.Before.Add(policy.For)
	}
	return rev, nil
}

// restore undoes a removal whose grace is not over, if she comes back with all
// that her certificates say: then they hold again, and what is frozen goes on.
// One who comes back with less loses it at once. It gives the time up to which
// certificates were refused.
func (r *Records) restore(t kv.Txn, a xos.Account, groups []xos.GroupName, roles []xos.RoleName) (before time.Time, restored bool, err error) {
	key := prefixRevoked + "account/" + string(a.VO) + "/" + string(a.User)
	rec, ok, err := read[revocationRecord](t, key)
	if err != nil || !ok || rec.Leaves(r.now()) == vom.FateEnd {
		return rec.Before, false, err
	}
	if lost(rec.Groups, groups) || lost(rec.Roles, roles) {
		rec.Fate, rec.Grace, rec.Prior = "", time.Time{}, nil
		rec.Reason += "; she came back with other groups or roles: log in again"
		return rec.Before, false, write(t, key, rec)
	}
	if rec.Prior != nil {
		// What an earlier change had revoked stays so.
		return rec.Before, true, write(t, key, revocationRecord{Revocation: *rec.Prior, Until: rec.Until})
	}
	return rec.Before, true, t.Delete([]byte(key))
}
