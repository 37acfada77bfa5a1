package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/process"
)

// A login's uid is told before it is decided on: sshd calls getpwnam before
// authentication and later starts the session with the uid of that answer,
// whatever is said afterwards. So Preview reserves, and Commit makes durable
// only what every answer that the login process can have got has said.
//
// That is known without keeping account of who asked. A process got no answer
// before it started; so all its answers for an account were the present one if
// it started
//
//   - after the present id was reserved, or
//   - after this map was opened and after any reservation of the account was
//     last dropped, or its id freed (which is noted, for accounts by hash).
//
// Otherwise the login is refused, and the next attempt succeeds.

// buckets is how many moments of dropping are kept.
const buckets = 4096

type dropped [buckets]uint64

// Preview gives the account's id: the durable one, or else one reserved for it
// for at least ten minutes. It does not matter whether the account exists.
// xos.Unavailable means that there is no room for a reservation now.
func (m *Map) Preview(a xos.Account) (uint32, error) {
	if _, err := xos.ParseAccount(a.String()); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.users[a.String()]; ok {
		return r.ID, nil
	}
	r, err := m.reserve(a)
	if err != nil {
		return 0, err
	}
	return r.id, nil
}

// Prove notes that a valid certificate of the account was shown: its
// reservation, if there is one, is now safe from a flood of others.
func (m *Map) Prove(a xos.Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.held.all[a]; ok {
		m.held.prove(r, m.now())
	}
}

// Known reports whether the account has a durable or a reserved id.
func (m *Map) Known(a xos.Account) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, durable := m.users[a.String()]
	_, reserved := m.held.all[a]
	return durable || reserved
}

// Commit makes an account's id durable for a login that process p holds. It is
// xos.Unavailable if p may have been told another id; then the login must not
// go on.
func (m *Map) Commit(ctx context.Context, a xos.Account, p process.ID) (uint32, error) {
	if err := m.Settled(a, p); err != nil {
		return 0, err
	}
	return m.settle(ctx, a)
}

// Settled says whether Commit would now be refused, and why.
func (m *Map) Settled(a xos.Account, p process.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := max(m.start, m.dropped[m.bucket(a)])
	if d, ok := m.users[a.String()]; ok {
		if d.Boot == m.boot {
			told = min(told, d.Ticks)
		} else {
			told = 0
		}
	} else if r, ok := m.held.all[a]; ok {
		told = min(told, r.since)
	} else {
		return xos.Errorf(xos.Unavailable, "no uid is reserved for %s: this machine's service was restarted during the login", a).
			WithHint("log in again")
	}
	if p.Start <= told {
		return xos.Errorf(xos.Unavailable, "this login began before the uid of %s was settled", a).WithHint("log in again")
	}
	return nil
}

// Admit makes an account's id durable for a job, which is told it afterwards.
func (m *Map) Admit(ctx context.Context, a xos.Account) (uint32, error) {
	if _, err := xos.ParseAccount(a.String()); err != nil {
		return 0, err
	}
	return m.settle(ctx, a)
}

// settle makes an account's id durable and active.
func (m *Map) settle(ctx context.Context, a xos.Account) (uint32, error) {
	m.mu.Lock()
	d, ok := m.users[a.String()]
	m.mu.Unlock()
	if ok {
		return d.ID, m.Use(a, d.ID)
	}

	m.write.Lock()
	defer m.write.Unlock()
	m.mu.Lock()
	if d, ok := m.users[a.String()]; ok {
		m.mu.Unlock()
		return d.ID, m.use(a, d.ID)
	}
	r, err := m.reserve(a)
	if err != nil {
		m.mu.Unlock()
		return 0, err
	}
	r.pinned = true
	m.mu.Unlock()

	unlock, err := lockLocal(ctx, m.cfg.Etc)
	if err == nil {
		defer unlock()
		now := m.now().UTC()
		err = m.commitFree(record{User: a.String(), ID: r.id, State: Active, Time: now, Seen: now, Boot: m.boot, Ticks: r.since})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.pinned = false
	switch {
	case err == nil:
		m.held.remove(r) // its id stays taken, durably
	case xos.Is(err, xos.Conflict):
		m.drop(r)
	}
	if err != nil {
		return 0, err
	}
	return r.id, nil
}

// Groups makes the ids of VO groups durable: those named, in the same order.
func (m *Map) Groups(ctx context.Context, names []string) ([]Entry, error) {
	for _, name := range names {
		vo, group, sub := strings.Cut(name, ":")
		if !xos.ValidName(vo) || xos.ReservedName(vo) || sub && !xos.ValidName(group) {
			return nil, xos.Errorf(xos.Invalid, "%.80q is no VO group", name)
		}
	}
	if out, ok := m.durableGroups(names); ok {
		return out, nil
	}
	m.write.Lock()
	defer m.write.Unlock()
	unlock, err := lockLocal(ctx, m.cfg.Etc)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, err := process.Now()
	if err != nil {
		return nil, err
	}
	var fresh []record
	m.mu.Lock()
	for _, name := range names {
		if _, ok := m.groups[name]; ok {
			continue
		}
		id, err := m.slot(groupKey(name), name)
		if err != nil {
			m.mu.Unlock()
			return nil, err
		}
		// Nobody else may be given it while the journal is written. If that
		// fails it stays unused until the next start, which does no harm.
		m.owner[id] = groupKey(name)
		fresh = append(fresh, record{Group: name, ID: id, State: Active, Time: m.now().UTC(), Boot: m.boot, Ticks: now})
	}
	m.mu.Unlock()
	if err := m.commitFree(fresh...); err != nil {
		return nil, err
	}
	out, _ := m.durableGroups(names)
	return out, nil
}

func (m *Map) durableGroups(names []string) ([]Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Entry, len(names))
	for i, name := range names {
		r, ok := m.groups[name]
		if !ok {
			return nil, false
		}
		out[i] = entry(name, r)
	}
	return out, true
}

// commitFree makes records durable if the local user database, which the
// caller has locked, has neither their names nor their ids.
func (m *Map) commitFree(records ...record) error {
	l, err := readLocal(m.cfg.Etc)
	if err != nil {
		return err
	}
	for _, r := range records {
		if l.taken(r.ID) {
			return xos.Errorf(xos.Conflict, "id %d, reserved for %s%s, was given to a local user", r.ID, r.User, r.Group).
				WithHint("log in again")
		}
		if l.names[r.User] || l.names[r.Group] {
			return shadows(r.User + r.Group)
		}
	}
	return m.commit(records...)
}

// shadows is the refusal of names that would hide or meet a local one.
func shadows(name string) error {
	return xos.Errorf(xos.Permission, "this machine has a local user or group named %q", name).
		WithHint("rename it, or take the VO out of this machine's vos")
}

// reserve gives the account's reservation, a new one if need be. mu is held.
func (m *Map) reserve(a xos.Account) (*reservation, error) {
	now := m.now()
	if r, ok := m.held.all[a]; ok {
		m.held.touch(r, now)
		return r, nil
	}
	for _, r := range m.held.victims(now) {
		m.drop(r)
	}
	if len(m.held.all) >= m.held.limit {
		return nil, xos.Errorf(xos.Unavailable, "too many accounts are logging in at once").WithHint("try again")
	}
	ticks, err := process.Now()
	if err != nil {
		return nil, err
	}
	name := a.String()
	id, err := m.slot(userKey(name), name, string(a.VO))
	if err != nil {
		return nil, err
	}
	r := &reservation{account: a, id: id, since: ticks}
	m.owner[id] = userKey(name)
	m.held.add(r, now)
	return r, nil
}

// drop forgets a reservation; what was told of it is no longer known.
func (m *Map) drop(r *reservation) {
	m.held.remove(r)
	delete(m.owner, r.id)
	m.full = false
	m.untell(r.account)
}

// untell notes that what was told of an account until now no longer holds.
func (m *Map) untell(a xos.Account) {
	if now, err := process.Now(); err == nil {
		m.dropped[m.bucket(a)] = now
	} else {
		m.dropped[m.bucket(a)] = ^uint64(0)
	}
}

// slot finds the id for a new name: the one its hash prefers or the next that
// nobody ever had but this name; when there is none left, the one that has been
// free for longest. names are those that must not be local ones.
func (m *Map) slot(key string, names ...string) (uint32, error) {
	if s := stamp(m.cfg.Etc); s != m.stamp {
		l, err := readLocal(m.cfg.Etc)
		if err != nil {
			return 0, err
		}
		m.local, m.stamp, m.full = l, s, false
	}
	for _, name := range names {
		if m.local.names[name] {
			return 0, shadows(name)
		}
	}
	span := uint64(m.cfg.Last) - uint64(m.cfg.First) + 1
	if m.full {
		return 0, allGiven(span)
	}
	start := m.preferred(key, span)
	for i := uint64(0); i < span; i++ {
		id := m.cfg.First + uint32((start+i)%span)
		if m.cfg.SubIDs.has(id) {
			i += uint64(m.cfg.SubIDs.Last - id)
			continue
		}
		if _, taken := m.owner[id]; taken || m.local.taken(id) || m.isSubordinate(id) {
			continue
		}
		if last, spent := m.spent[id]; !spent || last.key() == key {
			return id, nil
		}
	}
	if id, ok := m.longestFree(); ok {
		return id, nil
	}
	m.full = true
	return 0, allGiven(span)
}

func allGiven(span uint64) error {
	return xos.Errorf(xos.TooLarge, "all %d ids for grid accounts are given away", span).
		WithHint("root makes room when nothing is left of former users: xos uid sweep")
}

func (m *Map) hash(key string) uint64 {
	h := hmac.New(sha256.New, m.siteKey)
	h.Write([]byte(key))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// bucket is keyed too, so that nobody can aim at another account's.
func (m *Map) bucket(a xos.Account) int { return int(m.hash("b"+a.String()) % buckets) }
