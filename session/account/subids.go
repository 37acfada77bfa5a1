package account

import (
	"context"
	"strconv"
	"strings"

	"github.com/xtreemos/xos"
)

// SubIDs is how many subordinate ids an account has: those that a container of
// hers may use beside her own, see subuid(5). A range of them begins at a
// multiple of this number.
//
// A range belongs to a uid, and goes the uid's way: it is searched for with it,
// and free with it. A free uid's range is given to another account only when
// none is left that no uid has; the uid loses it in the same write. So what
// outlives an account never comes to belong to another's container. No uid or
// gid is ever given out of a range, and no range that has one in it.
const SubIDs = 1 << 16

// Pool is where the ranges are: all that are whole between First and Last. The
// zero Pool has none.
type Pool struct{ First, Last uint32 }

// ParsePool reads "FIRST-LAST"; "" is the zero Pool.
func ParsePool(text string) (Pool, error) {
	if text == "" {
		return Pool{}, nil
	}
	first, last, _ := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(first, 10, 32)
	b, err2 := strconv.ParseUint(last, 10, 32)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return Pool{}, xos.Errorf(xos.Invalid, "%.40q is no range of ids", text).WithHint("for example 2013265920-2147418111")
	}
	return Pool{uint32(a), uint32(b)}, nil
}

// Check refuses a pool that is no use beside ids from first to last: it must
// be a part of them, so that its ids are the grid's and nobody else's, and leave
// half of them for accounts.
func (p Pool) Check(first, last uint32) error {
	switch {
	case p == Pool{}:
		return nil
	case p.First < first || p.Last > last || p.Last < p.First:
		return xos.Errorf(xos.Invalid, "subordinate ids must be between %d and %d, the ids of the grid", first, last)
	case p.ranges() == 0:
		return xos.Errorf(xos.Invalid, "from %d to %d there is no range of %d subordinate ids", p.First, p.Last, SubIDs)
	case uint64(p.Last-p.First)+1 > (uint64(last-first)+1)/2:
		return xos.Errorf(xos.Invalid, "subordinate ids from %d to %d leave less than half of the ids for accounts", p.First, p.Last)
	}
	return nil
}

// begin is where the first whole range is.
func (p Pool) begin() uint64 { return (uint64(p.First) + SubIDs - 1) / SubIDs * SubIDs }

func (p Pool) ranges() uint64 {
	if end := (uint64(p.Last) + 1) / SubIDs * SubIDs; p.First != 0 && end > p.begin() {
		return (end - p.begin()) / SubIDs
	}
	return 0
}

func (p Pool) has(id uint32) bool { return p.First != 0 && id >= p.First && id <= p.Last }

// hasRange says whether the range that begins there is one of the pool's.
func (p Pool) hasRange(first uint32) bool {
	return first != 0 && uint64(first) >= p.begin() && uint64(first) < p.begin()+p.ranges()*SubIDs
}

// rangeOf is the beginning of the range that an id would be in.
func rangeOf(id uint32) uint32 { return id &^ (SubIDs - 1) }

// SubIDsOf gives the first of an account's subordinate ids; ok is false if it
// has none, is not in use, or the pool is another by now.
func (m *Map) SubIDsOf(a xos.Account) (first uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.users[a.String()]
	return r.Sub, r.State == Active && m.cfg.SubIDs.hasRange(r.Sub)
}

// SubIDOwner gives the account and the uid whose subordinate id this is, of
// those that SubIDsOf gives.
func (m *Map) SubIDOwner(id uint32) (a xos.Account, uid uint32, ok bool) {
	m.mu.Lock()
	uid, ok = m.ranges[rangeOf(id)]
	m.mu.Unlock()
	if !ok {
		return a, 0, false
	}
	if a, ok = m.UserOf(uid); ok {
		_, ok = m.SubIDsOf(a)
	}
	return a, uid, ok
}

// Provide gives an account that is in use its subordinate ids, if there is a
// pool and it has none. xos.TooLarge: no range is left.
func (m *Map) Provide(ctx context.Context, a xos.Account) error {
	lacks := func() (record, bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		r, ok := m.users[a.String()]
		return r, ok && r.State == Active && r.Sub == 0
	}
	if _, ok := lacks(); !ok || m.cfg.SubIDs.ranges() == 0 {
		return nil
	}
	m.write.Lock()
	defer m.write.Unlock()
	r, ok := lacks()
	if !ok {
		return nil
	}
	unlock, err := lockLocal(ctx, m.cfg.Etc)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := readLocal(m.cfg.Etc)
	if err != nil {
		return err
	}
	m.mu.Lock()
	first, former, ok := m.freeRange(userKey(r.User), l)
	m.mu.Unlock()
	if !ok {
		return xos.Errorf(xos.TooLarge, "all %d ranges of subordinate ids are given away", m.cfg.SubIDs.ranges()).
			WithHint("make subids in node.toml larger")
	}
	r.Sub = first
	if former.ID != 0 {
		former.Sub = 0
		return m.commit(former, r)
	}
	return m.commit(r)
}

// freeRange finds a range: one that no uid has, or else that of the uid which
// has been free for longest; former is then its record. mu is held.
func (m *Map) freeRange(key string, l local) (first uint32, former record, ok bool) {
	n := m.cfg.SubIDs.ranges()
	start := m.hash("s"+key) % n
	for i := range n {
		first := uint32(m.cfg.SubIDs.begin() + (start+i)%n*SubIDs)
		if _, taken := m.ranges[first]; !taken && !m.blocked[first] && !l.overlaps(first, SubIDs) {
			return first, record{}, true
		}
	}
	for id, r := range m.spent {
		_, taken := m.owner[id] // reserved again
		if taken || !m.cfg.SubIDs.hasRange(r.Sub) || l.overlaps(r.Sub, SubIDs) {
			continue
		}
		if former.ID == 0 || r.Time.Before(former.Time) || r.Time.Equal(former.Time) && id < former.ID {
			former = r
		}
	}
	return former.Sub, former, former.ID != 0
}

// isSubordinate says whether an id is for containers alone. mu is held.
func (m *Map) isSubordinate(id uint32) bool {
	_, given := m.ranges[rangeOf(id)]
	return given || m.cfg.SubIDs.has(id)
}

// preferred is where in the ids the search for one begins, by key: not in the
// pool, where all would begin anew at its end.
func (m *Map) preferred(key string, span uint64) uint64 {
	start := m.hash(key) % span
	p := m.cfg.SubIDs
	if !p.has(m.cfg.First + uint32(start)) {
		return start
	}
	size := uint64(p.Last-p.First) + 1
	start = m.hash("again"+key) % (span - size)
	if start >= uint64(p.First-m.cfg.First) {
		start += size
	}
	return start
}

// noteRange keeps m.ranges when r takes the place of what is known of its id.
// mu is held.
func (m *Map) noteRange(r record) {
	old, ok := m.spent[r.ID]
	if !ok {
		if name, user := strings.CutPrefix(m.owner[r.ID], "u"); user {
			old = m.users[name]
		}
	}
	if old.ID == r.ID && old.Sub != 0 {
		delete(m.ranges, old.Sub)
		m.full = false
	}
	if r.Sub != 0 {
		m.ranges[r.Sub] = r.ID
	}
}

// block finds the ranges that have an id in them which was given to an account
// or group before there was a pool.
func (m *Map) block() {
	for id := range m.owner {
		m.blocked[rangeOf(id)] = true
	}
	for id := range m.spent {
		m.blocked[rangeOf(id)] = true
	}
}
