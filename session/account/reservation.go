package account

import (
	"container/list"
	"time"

	"github.com/xtreemos/xos"
)

// reservationTime is how long a reservation lasts after it was last asked for.
// It is far longer than sshd gives to a login (LoginGraceTime).
const reservationTime = 15 * time.Minute

// reservation is an id that was told for an account but is not durable.
type reservation struct {
	account xos.Account
	id      uint32
	since   uint64 // when it was made, in process ticks
	expires time.Time
	// proven: a valid certificate was shown for the account.
	proven bool
	// pinned: it is becoming durable and may not be dropped.
	pinned bool
	at     *list.Element // in its list
}

// reservations is a bounded set of them. Strangers can make sshd ask for any
// number of names, so when it is full the oldest of the VO with the most goes;
// but never one whose account showed a certificate, before its time.
type reservations struct {
	limit    int
	all      map[xos.Account]*reservation
	unproven map[xos.VOName]*list.List // least recently asked first
	proven   *list.List
}

func newReservations(limit int) reservations {
	return reservations{limit: limit, all: map[xos.Account]*reservation{}, unproven: map[xos.VOName]*list.List{}, proven: list.New()}
}

func (s *reservations) list(r *reservation) *list.List {
	if r.proven {
		return s.proven
	}
	l := s.unproven[r.account.VO]
	if l == nil {
		l = list.New()
		s.unproven[r.account.VO] = l
	}
	return l
}

func (s *reservations) add(r *reservation, now time.Time) {
	r.expires = now.Add(reservationTime)
	r.at = s.list(r).PushBack(r)
	s.all[r.account] = r
}

// touch prolongs a reservation.
func (s *reservations) touch(r *reservation, now time.Time) {
	r.expires = now.Add(reservationTime)
	s.list(r).MoveToBack(r.at)
}

// prove protects a reservation from being dropped before its time.
func (s *reservations) prove(r *reservation, now time.Time) {
	if r.proven {
		s.touch(r, now)
		return
	}
	s.unlist(r)
	r.proven, r.expires = true, now.Add(reservationTime)
	r.at = s.list(r).PushBack(r)
}

func (s *reservations) remove(r *reservation) {
	s.unlist(r)
	delete(s.all, r.account)
}

func (s *reservations) unlist(r *reservation) {
	l := s.list(r)
	l.Remove(r.at)
	if !r.proven && l.Len() == 0 {
		delete(s.unproven, r.account.VO)
	}
}

// victims gives the reservations to drop now: those that ran out and, if there
// is still no room for one more, the one that fairness picks.
func (s *reservations) victims(now time.Time) []*reservation {
	var out []*reservation
	expired := func(l *list.List) {
		for e := l.Front(); e != nil; e = e.Next() {
			r := e.Value.(*reservation)
			if now.Before(r.expires) {
				return
			}
			if !r.pinned {
				out = append(out, r)
			}
		}
	}
	expired(s.proven)
	var most *list.List
	for _, l := range s.unproven {
		expired(l)
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	if len(out) > 0 || len(s.all) < s.limit || most == nil {
		return out
	}
	for e := most.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*reservation); !r.pinned {
			return append(out, r)
		}
	}
	return out
}
