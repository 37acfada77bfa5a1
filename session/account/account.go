// Package account keeps a machine's account map: grid accounts and VO groups,
// each with its local id. An account's gid equals its uid, and users and
// groups draw from one space of ids, so that no id ever has two meanings.
//
// What outlives an account - files, processes, keyrings - must never come to
// belong to another. So an id goes a long way before it is given again: active,
// closing, quarantined, and free only with the proof that a search of the
// machine found nothing of it (see Free). Even then the account that had it is
// preferred, and another is given it only when no id is left that nobody ever
// had. Before a name becomes durable it may be reserved (see Preview), in
// memory only.
package account

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
)

// Config says where the map is.
type Config struct {
	// Dir holds the journal and the site key; for root only. It must exist.
	Dir string
	// Etc is the directory with the local user database, "/etc".
	Etc string
	// SiteKey is a file of at least 16 bytes that decides which id an account
	// is given where that is free. Machines that share one mostly agree on
	// ids. Empty: Dir/site.key, made at first use.
	SiteKey string
	// Reservations bounds the reservations held at a time; 0: 16384.
	Reservations int
	// First and Last bound the ids; 0: session.FirstID and LastID.
	First, Last uint32
	// Quarantine is how long an id rests at least before it can be free; 0:
	// for ever.
	Quarantine time.Duration
	// SubIDs is where the accounts' subordinate ids are.
	SubIDs Pool
}

// State of an id's life.
type State string

const (
	Active      State = "active"      // in use, or may be at any time
	Closing     State = "closing"     // access ended, its processes are going
	Quarantined State = "quarantined" // nothing runs, traces may be left
	Free        State = "free"        // no trace is left, proven; see Map.Free
)

// Entry is one durable id.
type Entry struct {
	// Name of an account ("alice@physics") or of a VO group ("physics:higgs").
	Name  string
	ID    uint32
	State State
	Since time.Time // when the state began
	Seen  time.Time // when it was last used, to a day
	// Proof is the search by which it was freed.
	Proof string
	// Sub is the first of its SubIDs subordinate ids; 0: it has none. Whether
	// they may be used SubIDsOf says.
	Sub uint32
}

// Map is the account map. It is safe for concurrent use.
type Map struct {
	cfg     Config
	now     func() time.Time
	siteKey []byte
	boot    string
	start   uint64 // when this map was opened, in process ticks
	lock    *os.File

	write   sync.Mutex // held while something becomes durable; taken before mu
	journal *journal

	mu      sync.Mutex
	users   map[string]record
	rolls   map[xos.VOName]*roll // of users
	groups  map[string]record
	owner   map[uint32]string // durable and reserved ids; see key
	spent   map[uint32]record // free ids, with whom they belonged to last
	ranges  map[uint32]uint32 // uids by the first of their subordinate ids
	blocked map[uint32]bool   // ranges that cannot be given
	held    reservations
	dropped dropped // when reservations were last dropped, by bucket
	local   local
	stamp   string
	full    bool // no id is left: none has been given back since one was looked for
}

// key names the holder of an id: users and groups apart.
func userKey(name string) string  { return "u" + name }
func groupKey(name string) string { return "g" + name }

// Open reads the map. Only one process can have it open; the map outlives a
// kill at any point.
func Open(cfg Config, now func() time.Time) (*Map, error) {
	lock, err := os.OpenFile(filepath.Join(cfg.Dir, "accounts.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "opening the account map: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, xos.Errorf(xos.Exists, "another process has the account map in %s open", cfg.Dir)
	}
	m, err := open(cfg, now, directory(cfg.Dir))
	if err != nil {
		lock.Close()
		return nil, err
	}
	m.lock = lock
	return m, nil
}

func open(cfg Config, now func() time.Time, d disk) (*Map, error) {
	if cfg.First == 0 {
		cfg.First, cfg.Last = session.FirstID, session.LastID
	}
	if cfg.First < 1000 || cfg.Last < cfg.First || cfg.Last > session.LastID {
		return nil, xos.Errorf(xos.Invalid, "%d..%d is no range of ids for grid accounts", cfg.First, cfg.Last)
	}
	if err := cfg.SubIDs.Check(cfg.First, cfg.Last); err != nil {
		return nil, err
	}
	if cfg.Reservations == 0 {
		cfg.Reservations = 16384
	}
	m := &Map{cfg: cfg, now: now, users: map[string]record{}, rolls: map[xos.VOName]*roll{}, groups: map[string]record{},
		owner: map[uint32]string{}, spent: map[uint32]record{}, ranges: map[uint32]uint32{}, blocked: map[uint32]bool{}}
	m.held = newReservations(cfg.Reservations)
	var err error
	if m.siteKey, err = siteKey(cfg); err != nil {
		return nil, err
	}
	if m.boot, err = process.Boot(); err != nil {
		return nil, err
	}
	if m.start, err = process.Now(); err != nil {
		return nil, err
	}
	records, err := readJournal(d)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if err := m.replay(r); err != nil {
			return nil, err
		}
	}
	m.block()
	if m.journal, err = newJournal(d, m.records()); err != nil {
		return nil, err
	}
	return m, nil
}

// replay takes over a record from the journal, which must contradict none.
func (m *Map) replay(r record) error {
	table, name, key := m.users, r.User, userKey(r.User)
	if r.User == "" {
		table, name, key = m.groups, r.Group, groupKey(r.Group)
	}
	old, known := table[name]
	holder, taken := m.owner[r.ID]
	moved := known && old.ID != r.ID && r.State != Free
	if other, given := m.ranges[r.Sub]; given && other != r.ID || r.Sub != rangeOf(r.Sub) || r.Sub != 0 && r.User == "" {
		return xos.Errorf(xos.Internal, "the account map contradicts itself at %q, subordinate id %d", name, r.Sub).
			WithHint("restore it from a backup")
	}
	if name == "" || r.ID < m.cfg.First || r.ID > m.cfg.Last || moved || taken && holder != key {
		return xos.Errorf(xos.Internal, "the account map contradicts itself at %q, id %d", name, r.ID).
			WithHint("restore it from a backup")
	}
	m.take(r)
	return nil
}

// take makes a record hold in memory.
func (m *Map) take(r record) {
	m.noteRange(r)
	table, name, key := m.users, r.User, userKey(r.User)
	if r.User == "" {
		table, name, key = m.groups, r.Group, groupKey(r.Group)
	}
	if r.State == Free {
		if table[name].ID == r.ID {
			delete(table, name)
			if r.User != "" {
				m.roll(name).strike(Holder{name, r.ID})
			}
		}
		delete(m.owner, r.ID)
		m.full = false
		m.spent[r.ID] = r
		return
	}
	if _, known := table[name]; !known && r.User != "" {
		m.roll(name).enter(Holder{name, r.ID})
	}
	table[name] = r
	m.owner[r.ID] = key
	delete(m.spent, r.ID)
}

func (m *Map) records() []record {
	var all []record
	for _, r := range m.spent {
		all = append(all, r)
	}
	for _, table := range []map[string]record{m.users, m.groups} {
		for _, r := range table {
			all = append(all, r)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

func siteKey(cfg Config) ([]byte, error) {
	path := cfg.SiteKey
	if path == "" {
		path = filepath.Join(cfg.Dir, "site.key")
		if _, err := os.Stat(path); os.IsNotExist(err) {
			if err := makeKey(path); err != nil {
				return nil, xos.Errorf(xos.Internal, "making the site key: %w", err)
			}
		}
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the site key: %w", err)
	}
	if len(key) < 16 {
		return nil, xos.Errorf(xos.Invalid, "the site key %s is shorter than 16 bytes", path)
	}
	return key, nil
}

// makeKey makes a key file, whole or not at all.
func makeKey(path string) error {
	key := make([]byte, 32)
	rand.Read(key)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(key); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return directory(filepath.Dir(path)).SyncDir()
}

// Close lets another process open the map.
func (m *Map) Close() error {
	m.write.Lock()
	defer m.write.Unlock()
	m.journal.broken = os.ErrClosed
	err := m.journal.f.Close()
	if m.lock != nil {
		m.lock.Close()
	}
	return err
}

// User gives an account's durable id.
func (m *Map) User(a xos.Account) (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.users[a.String()]
	return entry(a.String(), r), ok
}

// UserOf gives the account of a durable uid.
func (m *Map) UserOf(uid uint32) (xos.Account, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok := strings.CutPrefix(m.owner[uid], "u")
	if _, durable := m.users[name]; !ok || !durable {
		return xos.Account{}, false
	}
	a, err := xos.ParseAccount(name)
	return a, err == nil
}

// Group gives a VO group's durable gid.
func (m *Map) Group(name string) (Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.groups[name]
	return entry(name, r), ok
}

// GroupOf gives the VO group of a durable gid.
func (m *Map) GroupOf(gid uint32) (name string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok = strings.CutPrefix(m.owner[gid], "g")
	if _, durable := m.groups[name]; !ok || !durable {
		return "", false
	}
	return name, true
}

// VOs gives the VOs that have a durable group, sorted.
func (m *Map) VOs() []xos.VOName {
	m.mu.Lock()
	defer m.mu.Unlock()
	var vos []xos.VOName
	for name := range m.groups {
		if !strings.Contains(name, ":") {
			vos = append(vos, xos.VOName(name))
		}
	}
	sort.Slice(vos, func(i, j int) bool { return vos[i] < vos[j] })
	return vos
}

func entry(name string, r record) Entry {
	return Entry{Name: name, ID: r.ID, State: r.State, Since: r.Time, Seen: r.Seen, Proof: r.Proof, Sub: r.Sub}
}

// commit makes records durable and then visible. The write lock is held.
func (m *Map) commit(records ...record) error {
	if err := m.journal.append(records...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		m.take(r)
	}
	return nil
}
