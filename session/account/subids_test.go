package account_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
)

func TestPool(t *testing.T) {
	for _, text := range []string{"x", "1", "5-4", "-", "0-70000", "2013265920-99999999999", "2013265920-2147418111-1", " 2013265920-2147418111"} {
		if p, err := account.ParsePool(text); !xos.Is(err, xos.Invalid) {
			t.Errorf("%q is %+v, %v", text, p, err)
		}
	}
	for text, good := range map[string]bool{
		"": true, "2013265920-2147418111": true, "2013265921-2013462527": true,
		"2000000000-2999999999": false, // not the grid's, above
		"1000000000-1900000000": false, // nor below
		"2013265921-2013331456": false, // no whole range
		"1900000000-2147418111": false, // too few are left
	} {
		p, err := account.ParsePool(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if err := p.Check(session.FirstID, session.LastID); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// few is a machine whose ids are few: a pool of so many ranges, and the rest.
func few(t *testing.T, ranges uint32) *host {
	h := newHost(t)
	h.First = 1 << 30
	h.Last = h.First + 2*ranges*account.SubIDs - 1
	h.SubIDs = account.Pool{First: h.First + ranges*account.SubIDs, Last: h.Last}
	h.Quarantine = time.Hour
	return h
}

func (h *host) provide(m *account.Map, a xos.Account) uint32 {
	h.Helper()
	ctx := context.Background()
	if _, err := m.Admit(ctx, a); err != nil {
		h.Fatal(err)
	}
	if err := m.Provide(ctx, a); err != nil {
		h.Fatal(err)
	}
	first, ok := m.SubIDsOf(a)
	if !ok || first%account.SubIDs != 0 {
		h.Fatalf("%s has %d, %v", a, first, ok)
	}
	return first
}

func member(i int) xos.Account {
	return xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: "physics"}
}

// TestSubIDs: each account has a range of its own, in the pool and free of what
// is local or was given before; it keeps it over restarts.
func TestSubIDs(t *testing.T) {
	h := few(t, 8)
	pool := h.SubIDs
	h.etc("subuid", fmt.Sprintf("local:%d:10\n", pool.First+5))
	h.etc("subgid", fmt.Sprintf("local:%d:%d\n", pool.First+2*account.SubIDs-1, 2))
	h.etc("passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\nlocal:x:%d:100::/:/bin/sh\n", pool.First+3*account.SubIDs))
	// Before there was a pool.
	h.SubIDs = account.Pool{}
	m := h.open()
	held := map[uint32]bool{}
	for i := range 3 {
		uid, err := m.Admit(context.Background(), xos.Account{User: xos.UserID(fmt.Sprint("early", i)), VO: "physics"})
		if err != nil {
			t.Fatal(err)
		}
		held[uid&^(account.SubIDs-1)] = true
		if err := m.Provide(context.Background(), alice); err != nil {
			t.Error(err)
		}
	}
	m.Close()
	h.SubIDs = pool
	m = h.open()
	ranges := map[uint32]xos.Account{}
	for i := 0; ; i++ {
		a := member(i)
		uid, err := m.Admit(context.Background(), a)
		if err != nil {
			t.Fatal(err)
		}
		if uid >= pool.First && uid <= pool.Last {
			t.Errorf("uid %d is in the pool", uid)
		}
		if err := m.Provide(context.Background(), a); xos.Is(err, xos.TooLarge) {
			if _, ok := m.SubIDsOf(a); ok {
				t.Errorf("%s has a range", a)
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
		first, ok := m.SubIDsOf(a)
		if other, taken := ranges[first]; !ok || taken || held[first] {
			t.Fatalf("%s has %d, %v, as %v (%v)", a, first, ok, other, held)
		}
		if first < pool.First+4*account.SubIDs || first > pool.Last {
			t.Errorf("range %d is the machine's", first)
		}
		ranges[first] = a
	}
	if want := 4 - len(intersect(held, pool.First+4*account.SubIDs)); len(ranges) != want {
		t.Errorf("%d ranges, want %d", len(ranges), want)
	}
	m.Close()
	m = h.open()
	for first, a := range ranges {
		if again, ok := m.SubIDsOf(a); !ok || again != first {
			t.Errorf("%s had %d, now %d, %v", a, first, again, ok)
		}
		for _, id := range []uint32{first, first + account.SubIDs - 1} {
			if owner, uid, ok := m.SubIDOwner(id); !ok || owner != a || h.uid(m, a) != uid {
				t.Errorf("%d is %v's (%d), %v", id, owner, uid, ok)
			}
		}
		if owner, _, ok := m.SubIDOwner(h.uid(m, a)); ok {
			t.Errorf("a uid is a subordinate id of %s", owner)
		}
	}
	// Another pool: nobody's range is in it, and none is lost.
	m.Close()
	h.SubIDs = account.Pool{First: h.First, Last: h.First + 2*account.SubIDs - 1}
	m = h.open()
	for first, a := range ranges {
		if _, ok := m.SubIDsOf(a); ok {
			t.Errorf("%s has a range that is not in the pool", a)
		}
		if e, _ := m.User(a); e.Sub != first {
			t.Errorf("%s had %d, now %+v", a, first, e)
		}
	}
}

func intersect(held map[uint32]bool, from uint32) (out []uint32) {
	for first := range held {
		if first >= from {
			out = append(out, first)
		}
	}
	return out
}

func (h *host) uid(m *account.Map, a xos.Account) uint32 {
	e, _ := m.User(a)
	return e.ID
}

// TestSubIDsAreRecycled: a range is given again only after its uid was freed,
// and then the one that has been free for longest; while a uid rests it has no
// use of it, and who comes back has it again.
func TestSubIDsAreRecycled(t *testing.T) {
	h := few(t, 3)
	m := h.open()
	ctx := context.Background()
	had := map[xos.Account]uint32{}
	for i := range 3 {
		had[member(i)] = h.provide(m, member(i))
	}
	late := member(9)
	if _, err := m.Admit(ctx, late); err != nil {
		t.Fatal(err)
	}
	none := func(when string) {
		t.Helper()
		if err := m.Provide(ctx, late); !xos.Is(err, xos.TooLarge) {
			t.Errorf("%s: %v", when, err)
		}
	}
	none("all are in use")
	var rest []account.Entry
	for i := range 2 {
		e := h.quarantine(m, member(i))
		if _, ok := m.SubIDsOf(member(i)); ok || e.Sub != had[member(i)] {
			t.Errorf("in quarantine: %+v, %v", e, ok)
		}
		rest = append(rest, e)
		h.now = h.now.Add(time.Minute)
	}
	none("in quarantine")
	if again := h.provide(m, member(1)); again != had[member(1)] {
		t.Errorf("she had %d and has %d", had[member(1)], again)
	}
	rest[1] = h.quarantine(m, member(1))
	h.now = h.now.Add(2 * time.Hour)
	for _, e := range rest {
		if err := m.Free(xos.Account{User: xos.UserID(e.Name[:2]), VO: "physics"}, proof(e)); err != nil {
			t.Fatal(err)
		}
		h.now = h.now.Add(time.Minute)
	}
	if _, _, ok := m.SubIDOwner(had[member(0)]); ok {
		t.Error("a free range has an owner")
	}
	if got := h.provide(m, late); got != had[member(0)] {
		t.Errorf("given %d, want %d, which is free for longest", got, had[member(0)])
	}
	m.Close()
	m = h.open()
	if a, _, ok := m.SubIDOwner(had[member(0)]); !ok || a != late {
		t.Errorf("the range is %v's, %v", a, ok)
	}
	for _, e := range m.Spent() {
		if e.Sub == had[member(0)] {
			t.Errorf("two have it: %+v", e)
		}
	}
	// Whose range is another's by now gets one of what is left.
	if again := h.provide(m, member(0)); again != had[member(1)] {
		t.Errorf("she has %d, want %d", again, had[member(1)])
	}
	if _, err := m.Admit(ctx, member(1)); err != nil {
		t.Fatal(err)
	}
	if err := m.Provide(ctx, member(1)); !xos.Is(err, xos.TooLarge) {
		t.Errorf("a fourth range: %v", err)
	}
}
