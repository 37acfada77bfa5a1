package account

import (
	"sort"
	"time"

	"github.com/xtreemos/xos"
)

// usedDaily is how old the note of an id's last use may get.
const usedDaily = 24 * time.Hour

// Proof says that a search of the machine found nothing of a quarantined id.
type Proof struct {
	ID uint32
	// Since is when the quarantine began in which the search was made; one
	// that was interrupted by a use proves nothing.
	Since time.Time
	// Search names it in the audit log.
	Search string
}

// key is whom a record belongs to.
func (r record) key() string {
	if r.User != "" {
		return userKey(r.User)
	}
	return groupKey(r.Group)
}

// Use makes an account's id active, whatever its state was, and notes that it
// is used now. xos.Unavailable if the id is not the account's any more.
func (m *Map) Use(a xos.Account, id uint32) error {
	m.mu.Lock()
	r, ok := m.users[a.String()]
	m.mu.Unlock()
	if ok && r.ID == id && r.State == Active && m.now().Sub(r.Seen) < usedDaily {
		return nil
	}
	m.write.Lock()
	defer m.write.Unlock()
	return m.use(a, id)
}

// use is Use with the write lock held.
func (m *Map) use(a xos.Account, id uint32) error {
	m.mu.Lock()
	r, ok := m.users[a.String()]
	m.mu.Unlock()
	if !ok || r.ID != id {
		return xos.Errorf(xos.Unavailable, "uid %d is not that of %s any more", id, a).WithHint("log in again")
	}
	now := m.now().UTC()
	if r.State == Active && now.Sub(r.Seen) < usedDaily {
		return nil
	}
	if r.State != Active {
		r.State, r.Time = Active, now
	}
	r.Seen = now
	return m.commit(r)
}

// Move takes an account's id a step on its way out: from active to closing, or
// from closing to quarantined. xos.Conflict if it is in another state than from.
func (m *Map) Move(a xos.Account, from, to State) error {
	if !(from == Active && to == Closing || from == Closing && to == Quarantined) {
		return xos.Errorf(xos.Invalid, "an id does not go from %q to %q", from, to)
	}
	m.write.Lock()
	defer m.write.Unlock()
	m.mu.Lock()
	r, ok := m.users[a.String()]
	m.mu.Unlock()
	if !ok {
		return xos.Errorf(xos.NotFound, "%s has no uid on this machine", a)
	}
	if r.State != from {
		return xos.Errorf(xos.Conflict, "the uid of %s is %s", a, r.State)
	}
	r.State, r.Time = to, m.now().UTC()
	return m.commit(r)
}

// Due says when a quarantined id may be freed at the earliest; ok is false if
// never.
func (m *Map) Due(e Entry) (at time.Time, ok bool) {
	if m.cfg.Quarantine <= 0 || e.State != Quarantined {
		return time.Time{}, false
	}
	return e.Since.Add(m.cfg.Quarantine), true
}

// Free makes a quarantined id free, with the proof that nothing of it is left.
// The account is unknown afterwards. xos.Conflict if the id is not in the
// quarantine that the proof is about, xos.Unavailable if its time is not over,
// xos.NotSupported if ids are kept for ever.
func (m *Map) Free(a xos.Account, p Proof) error {
	if p.Search == "" {
		return xos.Errorf(xos.Invalid, "no id is freed without a proof")
	}
	m.write.Lock()
	defer m.write.Unlock()
	m.mu.Lock()
	r, ok := m.users[a.String()]
	m.mu.Unlock()
	if !ok || r.ID != p.ID || r.State != Quarantined || !r.Time.Equal(p.Since) {
		return xos.Errorf(xos.Conflict, "uid %d of %s is not in the quarantine that was searched", p.ID, a)
	}
	switch at, ok := m.Due(entry(a.String(), r)); {
	case !ok:
		return xos.Errorf(xos.NotSupported, "uids are kept for ever on this machine").WithHint("set quarantine in node.toml")
	case m.now().Before(at):
		return xos.Errorf(xos.Unavailable, "uid %d stays in quarantine until %s", p.ID, at.UTC().Format(time.RFC3339))
	}
	r.State, r.Time, r.Proof = Free, m.now().UTC(), p.Search
	r.Boot, r.Ticks = "", 0
	if err := m.commit(r); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.untell(a)
	return nil
}

// Users gives all accounts that have an id, sorted by it.
func (m *Map) Users() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Entry, 0, len(m.users))
	for name, r := range m.users {
		all = append(all, entry(name, r))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

// Spent gives the ids that are free again, with whom they belonged to last,
// sorted by id.
func (m *Map) Spent() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Entry, 0, len(m.spent))
	for _, r := range m.spent {
		all = append(all, entry(r.User+r.Group, r))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

// IsFree reports whether an id was somebody's, and is nobody's now. That it was
// previewed makes no difference: it may be given and free still.
func (m *Map) IsFree(id uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, free := m.spent[id]
	return free
}

// longestFree gives the id that has been free for longest. mu is held.
func (m *Map) longestFree() (uint32, bool) {
	var best record
	for id, r := range m.spent {
		if _, taken := m.owner[id]; taken || m.local.taken(id) || m.isSubordinate(id) {
			continue
		}
		if best.ID == 0 || r.Time.Before(best.Time) || r.Time.Equal(best.Time) && id < best.ID {
			best = r
		}
	}
	return best.ID, best.ID != 0
}
