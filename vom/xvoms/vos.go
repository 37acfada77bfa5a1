package xvoms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type voRecord struct {
	Created time.Time       `json:"created"`
	Groups  []xos.GroupName `json:"groups,omitempty"` // sorted
	Policy  string          `json:"policy,omitempty"`
	// Isolation is the text of the VO's policy of isolation.
	Isolation string `json:"isolation,omitempty"`
	// IsolationEpoch is that of the first bundle with this text; 0: not known.
	IsolationEpoch uint64        `json:"isolation_epoch,omitempty"`
	Removal        vom.Removal   `json:"removal,omitzero"`
	Offline        time.Duration `json:"offline,omitempty"`
}

// of gives what machines know of a VO.
func (v voRecord) of(name string) vom.VO {
	return vom.VO{Name: xos.VOName(name), Groups: v.Groups, Policy: v.Policy, Isolation: v.Isolation, Removal: v.Removal, Offline: v.Offline}
}

// maxPolicy bounds a VO's policy, which every machine holds and parses.
const maxPolicy = 64 << 10

// VO is a VO with what administrators see of it.
type VO struct {
	vom.VO
	Created time.Time
	Members int
}

func goodName(what, s string) error {
	if !xos.ValidName(s) {
		return xos.Errorf(xos.Invalid, "%.80q is no %s name: want a lower-case letter, then at most %d of a-z 0-9 _ - .", s, what, xos.MaxName-1)
	}
	if xos.ReservedName(s) {
		return xos.Errorf(xos.Invalid, "%q is reserved for the local machine and may name no %s", s, what)
	}
	return nil
}

// CreateVO makes a VO without members.
func (r *Records) CreateVO(ctx context.Context, name xos.VOName) error {
	if err := goodName("VO", string(name)); err != nil {
		return err
	}
	return r.change(ctx, func(t kv.Txn) error {
		if _, ok, err := read[voRecord](t, keyVO(name)); err != nil || ok {
			return or(err, xos.Errorf(xos.Exists, "the VO %q exists already", name))
		}
		if err := write(t, keyVO(name), voRecord{Created: r.now()}); err != nil {
			return err
		}
		return bump(t)
	})
}

// DeleteVO removes a VO that has no members any more.
func (r *Records) DeleteVO(ctx context.Context, name xos.VOName, by string) error {
	return r.change(ctx, func(t kv.Txn) error {
		if err := needVO(t, name); err != nil {
			return err
		}
		members := 0
		err := each(t, prefixMember+string(name)+"/", func(string, memberRecord) error { members++; return nil })
		if err != nil {
			return err
		}
		if members > 0 {
			return xos.Errorf(xos.Conflict, "the VO %q still has %d members", name, members).
				WithHint("remove each with: xos vo member remove %s USER", name)
		}
		if err := t.Delete([]byte(keyVO(name))); err != nil {
			return err
		}
		rev := vom.Revocation{VO: name, Before: r.now(), Reason: "the VO " + string(name) + " was deleted " + by}
		if err := r.revoke(t, "vo/"+string(name), rev, MaxUserTTL); err != nil {
			return err
		}
		return bump(t)
	})
}

// ListVOs gives all VOs, by name.
func (r *Records) ListVOs(ctx context.Context) (vos []VO, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		vos = nil
		members := map[string]int{}
		err := each(t, prefixMember, func(rest string, _ memberRecord) error {
			vo, _, _ := strings.Cut(rest, "/")
			members[vo]++
			return nil
		})
		if err != nil {
			return err
		}
		return each(t, prefixVO, func(name string, v voRecord) error {
			vos = append(vos, VO{VO: v.of(name),
				Created: v.Created, Members: members[name]})
			return nil
		})
	})
	return vos, err
}

// SetPolicy replaces a VO's policy; "" means the default one.
func (r *Records) SetPolicy(ctx context.Context, name xos.VOName, policy string) error {
	if len(policy) > maxPolicy {
		return xos.Errorf(xos.TooLarge, "a policy of %d bytes: at most %d", len(policy), maxPolicy)
	}
	if policy != "" {
		if err := r.policy(policy); err != nil {
			return err
		}
	}
	return r.edit(ctx, name, func(v *voRecord) { v.Policy = policy })
}

// Isolation gives a VO's policy of isolation.
func (r *Records) Isolation(ctx context.Context, name xos.VOName) (string, error) {
	text, _, err := r.IsolationInForce(ctx, name)
	return text, err
}

// IsolationInForce gives a VO's policy of isolation, and where it is in force, by
// what the nodes that serve the VO said to this core last: each says it every ten
// seconds.
func (r *Records) IsolationInForce(ctx context.Context, name xos.VOName) (text string, nodes []IsolationAt, err error) {
	var v voRecord
	var latest uint64
	err = r.db.View(ctx, func(t kv.Txn) error {
		var ok bool
		var err error
		if v, ok, err = read[voRecord](t, keyVO(name)); err == nil && !ok {
			err = noVO(name)
		}
		if err == nil {
			latest, err = epoch(t)
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	since := v.IsolationEpoch
	if since == 0 {
		since = latest
	}
	return v.Isolation, r.heard.isolationAt(name, since, latest, r.now()), nil
}

// IsolationVersion names a text of a policy of isolation, by 64 bits of its
// SHA-256.
func IsolationVersion(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// SetIsolation replaces a VO's policy of isolation; "" shares nothing. One that
// is not good is refused, and the old one stays. If ifVersion is not "" and the
// VO has another version, it is xos.Conflict.
func (r *Records) SetIsolation(ctx context.Context, name xos.VOName, text, ifVersion string) error {
	if len(text) > maxPolicy {
		return xos.Errorf(xos.TooLarge, "a policy of %d bytes: at most %d", len(text), maxPolicy)
	}
	if text != "" {
		if r.cfg.Isolation == nil {
			return xos.Errorf(xos.NotSupported, "these records keep no policies of isolation")
		}
		if err := r.cfg.Isolation(text); err != nil {
			return err
		}
	}
	return r.change(ctx, func(t kv.Txn) error {
		v, ok, err := read[voRecord](t, keyVO(name))
		if err != nil || !ok {
			return or(err, noVO(name))
		}
		if ifVersion != "" && ifVersion != IsolationVersion(v.Isolation) {
			return xos.Errorf(xos.Conflict, "the policy of isolation of %s has been changed: it is version %s, not %.20q", name, IsolationVersion(v.Isolation), ifVersion).
				WithHint("look at it and decide anew: xos vo isolation show %s", name)
		}
		now, err := epoch(t)
		if err != nil {
			return err
		}
		v.Isolation, v.IsolationEpoch = text, now+1 // bumped below
		if err := write(t, keyVO(name), v); err != nil {
			return err
		}
		return bump(t)
	})
}

func needVO(t kv.Txn, name xos.VOName) error {
	_, ok, err := read[voRecord](t, keyVO(name))
	if err == nil && !ok {
		err = noVO(name)
	}
	return err
}

func noVO(name xos.VOName) error {
	return xos.Errorf(xos.NotFound, "there is no VO %.80q", string(name)).WithHint("see: xos vo list")
}

// or gives err, or where that is nil the other.
func or(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// now is the clock, without the monotonic part, which no record keeps.
func (r *Records) now() time.Time { return r.cfg.Now().UTC().Round(0) }

// change is an Update after which this core's own bundle is up to date.
func (r *Records) change(ctx context.Context, f func(kv.Txn) error) error {
	if err := r.db.Update(ctx, f); err != nil {
		return err
	}
	if err := r.Refresh(ctx); err != nil {
		r.cfg.Log.Warn("cannot read the bundle after a change", "error", err)
	}
	return nil
}
