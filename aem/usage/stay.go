package usage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
)

// Stays keeps the records of accounts' stays on this machine. A stay begins with
// an account's first session; it is over when there is none, and the cgroup of
// its sessions is gone, with the last of their processes. It is safe for
// concurrent use.
type Stays struct {
	node   xos.NodeID
	ledger *Ledger
	meter  nodeguard.Attendant
	now    func() time.Time
	log    *slog.Logger
	news   chan struct{} // a session has ended

	// one is held while an account's stay is looked at or changed, and written down;
	// mu only for the map, after it.
	one   locks[xos.Account]
	mu    sync.Mutex
	stays map[xos.Account]*stay
}

// stay is one that is not over. Its account's lock guards it.
type stay struct {
	uid      uint32
	sessions map[xos.SessionID]bool
	record   *xosv1.UsageRecord // as it was counted last; never changed in place
	quiet    bool               // nothing changed any more when it was counted last
}

// NewStays goes on with a predecessor's records. A stay that ended while nobody
// looked, and one that the machine's own end ended, is incomplete: booted is when
// this machine was started, uidOf the account map's. Sessions that are there must
// then be told of by Adopted.
func NewStays(node xos.NodeID, l *Ledger, m nodeguard.Attendant, uidOf func(xos.Account) (uint32, bool), booted time.Time, now func() time.Time, log *slog.Logger) *Stays {
	s := &Stays{node: node, ledger: l, meter: m, now: now, log: log, news: make(chan struct{}, 1), stays: map[xos.Account]*stay{}}
	for _, r := range l.Stays() {
		a, err := xos.ParseAccount(r.Account)
		uid, known := uidOf(a)
		st := &stay{uid: uid, sessions: map[xos.SessionID]bool{}, record: r}
		if err != nil || !known || s.stays[a] != nil || r.Started.AsTime().Before(booted) {
			s.end(a, st, true)
			continue
		}
		next, now, err := s.count(a, st)
		switch {
		case err != nil:
			log.Warn("it is not known what sessions use", "account", a, "error", err)
			s.stays[a] = st
		case now == next.Cgroup:
			if r.Cgroup == 0 { // or it had one, that nobody has seen
				st.record = proto.CloneOf(r)
				st.record.Incomplete = true
			}
			s.stays[a] = st
		default:
			st.record = next
			s.end(a, st, true)
		}
	}
	return s
}

// Began tells of a session that is being opened: the guard knows of the account by
// now. No session is refused for what cannot be written down.
// Logins of different accounts do not wait for each other here.
func (s *Stays) Began(l session.Session) {
	a := l.Identity.Account
	defer s.one.lock(a)()
	st := s.of(a)
	if st != nil && len(st.sessions) == 0 {
		if next, now, err := s.count(a, st); err == nil && now != next.Cgroup {
			st.record = next
			s.end(a, st, false)
		}
	}
	if st = s.of(a); st == nil {
		s.arrive(a, l.Mapping.UID)
		st = s.begin(l, s.now())
	}
	st.sessions[l.ID], st.quiet = true, false
	s.change(st, func(r *xosv1.UsageRecord) { r.Logins++ })
}

// Adopted tells of a session that a predecessor of this process opened.
func (s *Stays) Adopted(l session.Session) {
	a := l.Identity.Account
	defer s.one.lock(a)()
	st := s.of(a)
	if st == nil { // its stay has been ended, or nobody wrote it down
		s.arrive(a, l.Mapping.UID)
		st = s.begin(l, s.now())
		s.change(st, func(r *xosv1.UsageRecord) { r.Logins, r.Incomplete = 1, true })
	}
	st.sessions[l.ID] = true
}

// Ended tells of the end of a session; what is not known is none.
func (s *Stays) Ended(l session.Session) {
	unlock := s.one.lock(l.Identity.Account)
	if st := s.of(l.Identity.Account); st != nil {
		delete(st.sessions, l.ID)
	}
	unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

const (
	// writeEvery is how often it is written down what goes on. Should the machine
	// stop, that much is known.
	writeEvery = time.Minute
	// lookEvery is how often it is looked whether a stay without sessions is over,
	// and whether the first of one has its cgroup: what that counts in its last
	// moments is not known.
	lookEvery = time.Second
)

// Run keeps the records until ctx ends.
func (s *Stays) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for written := s.now(); ; {
		all := false
		select {
		case <-ctx.Done():
		case <-tick.C:
			all = s.now().Sub(written) >= writeEvery
		case <-s.news:
		}
		stopping := ctx.Err() != nil // all is written down once more, whatever else there is
		if all = all || stopping; all {
			written = s.now()
		}
		s.mu.Lock()
		accounts := slices.Collect(maps.Keys(s.stays))
		s.mu.Unlock()
		for _, a := range accounts { // a login waits for its own account's at most
			s.look(a, all)
		}
		if stopping {
			return nil
		}
	}
}

// look counts what an account's stay has used, and ends it if it is over.
func (s *Stays) look(a xos.Account, write bool) {
	defer s.one.lock(a)()
	st := s.of(a)
	if st == nil || len(st.sessions) > 0 && st.record.Cgroup != 0 && !write {
		return
	}
	next, now, err := s.count(a, st)
	if err != nil {
		s.log.Warn("it is not known what sessions use", "account", a, "error", err)
		return
	}
	if now != next.Cgroup && (now != 0 || len(st.sessions) > 0) { // it goes on elsewhere
		st.record = next
		if s.end(a, st, false) {
			s.succeed(a, st)
		}
		return
	}
	// What is left in sockets is still sent.
	quiet := len(st.sessions) == 0 && now == 0
	over := quiet && st.quiet && next.ReceivedBytes == st.record.ReceivedBytes && next.SentBytes == st.record.SentBytes
	came := st.record.Cgroup != next.Cgroup
	st.record, st.quiet = next, quiet
	if over {
		s.end(a, st, false)
	} else if write || came {
		s.put(next)
	}
}

// count gives the record of a stay as it is now, and where its processes are now,
// 0 for nowhere. If that is not the record's cgroup, that one is gone: its figures
// are those that were counted last.
func (s *Stays) count(a xos.Account, st *stay) (next *xosv1.UsageRecord, now uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	u, err := s.meter.Stay(ctx, a, st.uid)
	if xos.Is(err, xos.NotFound) { // this machine counts nothing
		u, err = nodeguard.Stay{Used: Unknown()}, nil
	}
	if err != nil {
		return nil, 0, err
	}
	old := st.record
	gone := old.Cgroup != 0 && old.Cgroup != u.Cgroup
	if gone {
		u.CPUUser, u.CPUSystem, u.MemoryPeak = 0, 0, 0
		if u.Cgroup != 0 { // another's
			u.Read, u.Written = 0, 0
		}
	}
	counted := &xosv1.UsageRecord{}
	Count(counted, u.Used, aem.Usage{})
	next = merge(old, counted)
	if !gone {
		next.Cgroup = u.Cgroup
	}
	if at := s.now(); at.After(old.Until.AsTime()) {
		next.Until = timestamppb.New(at)
	}
	return next, u.Cgroup, nil
}

// merge gives the record old with the figures of new, all of which only grow.
func merge(old, new *xosv1.UsageRecord) *xosv1.UsageRecord {
	r := proto.CloneOf(old)
	for _, f := range []struct {
		to   *int64
		from int64
	}{{&r.CpuUserMicros, new.CpuUserMicros}, {&r.CpuSystemMicros, new.CpuSystemMicros}, {&r.MemoryPeakBytes, new.MemoryPeakBytes},
		{&r.ReadBytes, new.ReadBytes}, {&r.WrittenBytes, new.WrittenBytes}, {&r.ReceivedBytes, new.ReceivedBytes}, {&r.SentBytes, new.SentBytes},
		{&r.Executions, new.Executions}, {&r.Opens, new.Opens}, {&r.Refusals, new.Refusals}} {
		*f.to = max(*f.to, f.from)
	}
	r.Uncounted = slices.DeleteFunc(r.Uncounted, func(f string) bool { return !slices.Contains(new.Uncounted, f) })
	return r
}

// arrive begins anew to count: what was counted is in a final record.
func (s *Stays) arrive(a xos.Account, uid uint32) {
	if err := s.meter.Arrive(a, uid); err != nil && !xos.Is(err, xos.NotSupported) {
		s.log.Warn("what sessions use is not counted from their beginning", "account", a, "error", err)
	}
}

// of gives an account's stay, nil if there is none.
func (s *Stays) of(a xos.Account) *stay {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stays[a]
}

// keep has st be an account's stay.
func (s *Stays) keep(a xos.Account, st *stay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stays[a] = st
}

// begin opens a stay.
func (s *Stays) begin(l session.Session, at time.Time) *stay {
	credential := l.Identity.Source
	if credential == "" {
		credential = l.Identity.Serial
	}
	st := &stay{uid: l.Mapping.UID, sessions: map[xos.SessionID]bool{}, record: s.blank(l.Identity.Account, credential, at)}
	s.keep(l.Identity.Account, st)
	return st
}

// succeed opens a stay for the sessions of one that was ended under them.
func (s *Stays) succeed(a xos.Account, old *stay) {
	s.arrive(a, old.uid)
	st := &stay{uid: old.uid, sessions: old.sessions, record: s.blank(a, old.record.Credential, s.now())}
	s.keep(a, st)
	s.change(st, func(r *xosv1.UsageRecord) { r.Logins = int64(len(st.sessions)) })
}

func (s *Stays) blank(a xos.Account, credential string, at time.Time) *xosv1.UsageRecord {
	var b [16]byte
	rand.Read(b[:])
	began := timestamppb.New(at)
	return &xosv1.UsageRecord{Stay: stayPrefix + hex.EncodeToString(b[:]), Account: a.String(), Credential: credential, Node: string(s.node),
		Submitted: began, Started: began, Until: began, Uncounted: slices.Clone(figures)}
}

// change writes a changed record down.
func (s *Stays) change(st *stay, f func(*xosv1.UsageRecord)) {
	st.record = proto.CloneOf(st.record)
	f(st.record)
	s.put(st.record)
}

// end writes the final record down, and says whether it is: else the stay goes on,
// and its end is tried again.
func (s *Stays) end(a xos.Account, st *stay, incomplete bool) bool {
	r := proto.CloneOf(st.record)
	r.Final, r.Incomplete = true, r.Incomplete || incomplete
	if !s.put(r) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stays[a] == st {
		delete(s.stays, a)
	}
	return true
}

func (s *Stays) put(r *xosv1.UsageRecord) bool {
	if err := s.ledger.Put(r); err != nil {
		s.log.Error("it is not written down what sessions use", "account", r.Account, "error", err)
		return false
	}
	return true
}
