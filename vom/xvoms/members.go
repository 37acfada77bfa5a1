package xvoms

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type memberRecord struct {
	Groups []xos.GroupName `json:"groups,omitempty"` // sorted
	Roles  []xos.RoleName  `json:"roles,omitempty"`  // sorted
	Home   xos.VolumeID    `json:"home,omitempty"`
	Since  time.Time       `json:"since"`
	// LastIssued is the time of issue of the newest certificate.
	LastIssued time.Time `json:"last_issued"`
}

// maxGroups and maxRoles are what a certificate holds; see vom/credential.
const (
	maxGroups = 64
	maxRoles  = 64
)

// HomeVolume names a member's home. A '-' of the VO's name is doubled: the
// homes of c in the VO a-b and of b-c in the VO a are not the same.
func HomeVolume(a xos.Account) xos.VolumeID {
	return xos.VolumeID("home-" + strings.ReplaceAll(string(a.VO), "-", "--") + "-" + string(a.User))
}

// AddMember makes a user a member, with exactly these groups (made where the
// VO lacks them) and roles; of a member it replaces them. What she loses she
// loses at once: her certificates issued so far are then revoked.
func (r *Records) AddMember(ctx context.Context, a xos.Account, groups []xos.GroupName, roles []xos.RoleName, by string) (xos.VolumeID, error) {
	home, _, err := r.admit(ctx, a, groups, roles, by)
	return home, err
}

// admit is AddMember; restored tells that it undid a removal.
func (r *Records) admit(ctx context.Context, a xos.Account, groups []xos.GroupName, roles []xos.RoleName, by string) (home xos.VolumeID, restored bool, err error) {
	groups, err = clean("group", groups, maxGroups)
	if err != nil {
		return "", false, err
	}
	roles, err = clean("role", roles, maxRoles)
	if err != nil {
		return "", false, err
	}
	exists := func(t kv.Txn) error {
		if err := needVO(t, a.VO); err != nil {
			return err
		}
		if _, err := needUser(t, a.User); err != nil {
			return err
		}
		m, _, err := read[memberRecord](t, keyMember(a))
		home = m.Home // that of a member stays
		return err
	}
	if err := r.db.View(ctx, exists); err != nil {
		return "", false, err
	}
	if r.volumes != nil && home == "" {
		// Made first: a volume without a member is harmless, a member without
		// her volume could not log in.
		home = HomeVolume(a)
		if err := r.volumes.CreateVolume(ctx, home, a); err != nil {
			return "", false, err
		}
	}
	err = r.change(ctx, func(t kv.Txn) error {
		vo, ok, err := read[voRecord](t, keyVO(a.VO))
		if err != nil || !ok {
			return or(err, noVO(a.VO))
		}
		u, err := needUser(t, a.User)
		if err != nil {
			return err
		}
		old, member, err := read[memberRecord](t, keyMember(a))
		if err != nil {
			return err
		}
		m := memberRecord{Groups: groups, Roles: roles, Home: home, Since: r.now(), LastIssued: old.LastIssued}
		restored = false
		if member {
			m.Since = old.Since
			if lost(old.Groups, groups) || lost(old.Roles, roles) {
				rev := vom.Revocation{User: a.User, VO: a.VO, Before: later(r.now(), old.LastIssued),
					Reason: "the groups or roles in " + string(a.VO) + " were changed " + by + "; log in again"}
				if err := r.revoke(t, "account/"+string(a.VO)+"/"+string(a.User), rev, MaxUserTTL); err != nil {
					return err
				}
			}
		} else {
			before, again, err := r.restore(t, a, groups, roles)
			if err != nil {
				return err
			}
			// A removal yet to come must not be dated before what it ends.
			m.LastIssued, restored = later(m.LastIssued, before), again
			if err := t.Put([]byte(keyMemberOf(a)), nil); err != nil {
				return err
			}
		}
		if all := slices.Concat(vo.Groups, groups); lost(groups, vo.Groups) {
			slices.Sort(all)
			vo.Groups = slices.Compact(all)
			if err := write(t, keyVO(a.VO), vo); err != nil {
				return err
			}
		}
		if !u.Member {
			u.Member = true
			if err := write(t, keyUser(a.User), u); err != nil {
				return err
			}
		}
		if err := write(t, keyMember(a), m); err != nil {
			return err
		}
		return bump(t)
	})
	return home, restored, err
}

// RemoveMember ends a membership; every certificate issued for it is revoked.
// The home volume stays. What she has running goes as the VO's policy says.
func (r *Records) RemoveMember(ctx context.Context, a xos.Account, why, by string) error {
	return r.RemoveMemberTo(ctx, a, "", why, by)
}

// RemoveMemberTo is RemoveMember with the fate of what she has running, in place
// of the VO's policy; "" is that policy.
func (r *Records) RemoveMemberTo(ctx context.Context, a xos.Account, fate vom.Fate, why, by string) error {
	why, err := goodReason(why)
	if err != nil {
		return err
	}
	return r.change(ctx, func(t kv.Txn) error {
		m, ok, err := read[memberRecord](t, keyMember(a))
		if err != nil {
			return err
		}
		if !ok {
			return xos.Errorf(xos.NotFound, "%.80q is no member of %.80q", string(a.User), string(a.VO)).
				WithHint("see: xos vo member list %s", a.VO)
		}
		if err := deleteMember(t, a); err != nil {
			return err
		}
		reason := "removed from " + string(a.VO) + " " + by
		if why != "" {
			reason += ": " + why
		}
		rev := vom.Revocation{User: a.User, VO: a.VO, Before: later(r.now(), m.LastIssued), Reason: reason}
		vo, _, err := read[voRecord](t, keyVO(a.VO))
		if err != nil {
			return err
		}
		if rev, err = farewell(rev, vo.Removal, fate); err != nil {
			return err
		}
		if err := r.revokeMember(t, "account/"+string(a.VO)+"/"+string(a.User), rev, MaxUserTTL, m); err != nil {
			return err
		}
		return bump(t)
	})
}

// ListMembers gives a VO's members, by name.
func (r *Records) ListMembers(ctx context.Context, vo xos.VOName) (members []xos.Attributes, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		members = nil
		if err := needVO(t, vo); err != nil {
			return err
		}
		return each(t, prefixMember+string(vo)+"/", func(user string, m memberRecord) error {
			members = append(members, m.attributes(xos.Account{User: xos.UserID(user), VO: vo}))
			return nil
		})
	})
	return members, err
}

func (m memberRecord) attributes(a xos.Account) xos.Attributes {
	return xos.Attributes{Account: a, Groups: m.Groups, Roles: m.Roles, Home: m.Home}
}

func deleteMember(t kv.Txn, a xos.Account) error {
	if err := t.Delete([]byte(keyMember(a))); err != nil {
		return err
	}
	return t.Delete([]byte(keyMemberOf(a)))
}

// clean sorts names and removes doubles.
func clean[S ~string](what string, names []S, most int) ([]S, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > most {
		return nil, xos.Errorf(xos.TooLarge, "%d %ss are too many: at most %d", len(names), what, most)
	}
	for _, n := range names {
		if !xos.ValidName(string(n)) {
			return nil, xos.Errorf(xos.Invalid, "%.80q is no %s name", string(n), what)
		}
	}
	return names, nil
}

// lost reports whether something of old is missing in present.
func lost[S ~string](old, present []S) bool {
	return slices.ContainsFunc(old, func(s S) bool { return !slices.Contains(present, s) })
}
