package service

import (
	"time"

	"github.com/xtreemos/xos"
)

// tries limits the guessing of passwords on this machine, besides what the core
// does: for an account from one origin, for an account from everywhere, and
// for an origin with all accounts. Each has an allowance of wrong passwords,
// which is used up by them and comes back with time. It is kept in memory.
//
// A key's value is when its allowance will be whole again.
type tries map[string]time.Time

// allowance is how many wrong passwords there may be at once, and how long
// until there may be another one.
type allowance struct {
	burst int
	every time.Duration
}

const maxTries = 8192 // keys remembered

var (
	ofPair    = allowance{5, 12 * time.Second}
	ofAccount = allowance{20, 6 * time.Second}
	ofOrigin  = allowance{20, 6 * time.Second}
)

// limits are the keys that a try counts for.
func limits(a xos.Account, origin string) map[string]allowance {
	return map[string]allowance{a.String() + " " + origin: ofPair, a.String(): ofAccount, origin: ofOrigin}
}

// wait says how long a try must wait; 0 if it may be made.
func (t tries) wait(a xos.Account, origin string, now time.Time) time.Duration {
	var longest time.Duration
	for key, limit := range limits(a, origin) {
		if whole, known := t[key]; known {
			longest = max(longest, whole.Sub(now)-time.Duration(limit.burst-1)*limit.every)
		}
	}
	return longest
}

// wrong counts a wrong password.
func (t tries) wrong(a xos.Account, origin string, now time.Time) {
	for key, limit := range limits(a, origin) {
		if _, known := t[key]; !known && len(t) >= maxTries {
			t.prune(now)
		}
		whole := t[key]
		if whole.Before(now) {
			whole = now
		}
		t[key] = whole.Add(limit.every)
	}
}

// right forgives an account's wrong passwords from an origin: her own.
func (t tries) right(a xos.Account, origin string) {
	delete(t, a.String()+" "+origin)
}

// prune makes room: by what means nothing any more, or else by anything.
func (t tries) prune(now time.Time) {
	for key, whole := range t {
		if !whole.After(now) {
			delete(t, key)
		}
	}
	for key := range t {
		if len(t) < maxTries {
			break
		}
		delete(t, key)
	}
}
