package xvoms

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// guesses limits the guessing of passwords: after freeGuesses wrong ones each
// further try must wait, twice as long each time, up to a minute; so nobody is
// locked out for long by another's guessing. Tries at the same time could all be
// wrong: no more of them are made than would be free then, the others wait for
// their outcome. It is kept in memory: a restart of the core forgives. Names that
// do not exist are treated alike.
type guesses struct {
	mu sync.Mutex
	of map[xos.UserID]*tally
}

// tally is what is known of the tries for one user.
type tally struct {
	wrong  int       // since the last right one
	locked time.Time // until then
	trying int
	queue  []chan error // tries that wait, the oldest first: may it be made?
}

const (
	freeGuesses = 5
	maxDelay    = time.Minute
	maxGuessed  = 10000 // names remembered
	maxWaiting  = 64    // tries that wait, of a user
)

// outcome is how a try ended.
type outcome int

const (
	untold outcome = iota // the password was not compared
	failed
	passed
)

func newGuesses() *guesses { return &guesses{of: map[xos.UserID]*tally{}} }

// begin waits until a try may be made, and lets it be made: end must be called
// with its outcome.
func (g *guesses) begin(ctx context.Context, user xos.UserID, now func() time.Time) (end func(outcome), err error) {
	g.mu.Lock()
	t, err := g.tally(user)
	if err == nil && len(t.queue) >= maxWaiting {
		err = xos.Errorf(xos.Unavailable, "too many logins of %q at once", user).WithHint("try again")
	}
	if err != nil {
		g.mu.Unlock()
		return nil, err
	}
	turn := make(chan error, 1)
	t.queue = append(t.queue, turn)
	g.admit(user, t, now())
	g.mu.Unlock()
	end = func(o outcome) { g.end(user, t, o, now()) }
	select {
	case err := <-turn:
		return end, err
	case <-ctx.Done():
	}
	g.mu.Lock()
	if i := slices.Index(t.queue, turn); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
		g.tidy(user, t)
		turn <- ctx.Err()
	}
	g.mu.Unlock()
	if err := <-turn; err == nil {
		end(untold) // its turn came all the same
	}
	return nil, xos.Errorf(xos.Unavailable, "too many logins of %q at once: %w", user, ctx.Err())
}

// admit lets tries of the queue be made, in turn, or refuses them. mu is held.
func (g *guesses) admit(user xos.UserID, t *tally, now time.Time) {
	for len(t.queue) > 0 {
		var err error
		switch {
		case now.Before(t.locked):
			err = xos.Errorf(xos.Unavailable, "too many wrong passwords for %q", user).
				WithHint("try again in %v", t.locked.Sub(now).Round(time.Second)+time.Second)
		case t.trying == 0 || t.wrong+t.trying < freeGuesses:
			t.trying++
		default:
			return
		}
		t.queue[0] <- err
		t.queue = t.queue[1:]
	}
}

// tally gives a user's. mu is held.
func (g *guesses) tally(user xos.UserID) (*tally, error) {
	if t := g.of[user]; t != nil {
		return t, nil
	}
	if len(g.of) >= maxGuessed {
		for u, t := range g.of { // any: the map's order is random
			if t.trying == 0 && len(t.queue) == 0 {
				delete(g.of, u)
				break
			}
		}
	}
	if len(g.of) >= maxGuessed {
		return nil, xos.Errorf(xos.Unavailable, "too many logins at once").WithHint("try again")
	}
	t := &tally{}
	g.of[user] = t
	return t, nil
}

func (g *guesses) end(user xos.UserID, t *tally, o outcome, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.trying--
	switch o {
	case passed:
		t.wrong, t.locked = 0, time.Time{}
	case failed:
		t.wrong++
		if n := t.wrong - freeGuesses; n >= 0 {
			t.locked = now.Add(min(time.Second<<min(n, 10), maxDelay))
		}
	}
	g.admit(user, t, now)
	g.tidy(user, t)
}

// forget begins a user's count anew.
func (g *guesses) forget(user xos.UserID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.of[user]; t != nil {
		t.wrong, t.locked = 0, time.Time{}
		g.tidy(user, t)
	}
}

// tidy drops a tally that says nothing. mu is held.
func (g *guesses) tidy(user xos.UserID, t *tally) {
	if t.wrong == 0 && t.trying == 0 && len(t.queue) == 0 && g.of[user] == t {
		delete(g.of, user)
	}
}
