package account_test

import (
	"context"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/account"
)

// quarantine takes an account's id out of use.
func (h *host) quarantine(m *account.Map, a xos.Account) account.Entry {
	h.Helper()
	if err := m.Move(a, account.Active, account.Closing); err != nil {
		h.Fatal(err)
	}
	if err := m.Move(a, account.Closing, account.Quarantined); err != nil {
		h.Fatal(err)
	}
	e, ok := m.User(a)
	if !ok || e.State != account.Quarantined {
		h.Fatalf("%+v", e)
	}
	return e
}

func proof(e account.Entry) account.Proof {
	return account.Proof{ID: e.ID, Since: e.Since, Search: "search-1"}
}

func TestNothingIsFreedTooEarly(t *testing.T) {
	h := newHost(t)
	h.Quarantine = 720 * time.Hour
	m := h.open()
	ctx := context.Background()
	uid, err := m.Admit(ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	free := func(what string, p account.Proof, want xos.Kind) {
		t.Helper()
		if err := m.Free(alice, p); !xos.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	active, _ := m.User(alice)
	free("in use", proof(active), xos.Conflict)
	if err := m.Move(alice, account.Active, account.Quarantined); !xos.Is(err, xos.Invalid) {
		t.Errorf("a step was left out: %v", err)
	}
	if err := m.Move(alice, account.Closing, account.Quarantined); !xos.Is(err, xos.Conflict) {
		t.Errorf("an active id was quarantined: %v", err)
	}
	e := h.quarantine(m, alice)
	free("time", proof(e), xos.Unavailable)
	h.now = h.now.Add(720*time.Hour - 1)
	free("time, almost over", proof(e), xos.Unavailable)
	h.now = h.now.Add(1)
	free("no proof", account.Proof{ID: e.ID, Since: e.Since}, xos.Invalid)
	free("another id's proof", account.Proof{ID: e.ID + 1, Since: e.Since, Search: "x"}, xos.Conflict)

	// She comes back: the search of her former quarantine proves nothing.
	if again, err := m.Admit(ctx, alice); err != nil || again != uid {
		t.Fatalf("%d, %v", again, err)
	}
	free("used", proof(e), xos.Conflict)
	h.now = h.now.Add(time.Hour)
	e2 := h.quarantine(m, alice)
	h.now = h.now.Add(800 * time.Hour)
	free("proof of a former quarantine", proof(e), xos.Conflict)
	m.Close()
	m = h.open()
	if err := m.Free(alice, proof(e2)); err != nil {
		t.Errorf("with its proof: %v", err)
	}
	if _, ok := m.User(alice); ok {
		t.Error("a freed account is known")
	}
	if _, ok := m.UserOf(uid); ok {
		t.Error("a freed uid is somebody's")
	}
	if err := m.Use(alice, uid); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a freed uid is used: %v", err)
	}
	free("freed already", proof(e2), xos.Conflict)
	if s := m.Spent(); len(s) != 1 || s[0].ID != uid || s[0].Proof != "search-1" || s[0].Name != alice.String() {
		t.Errorf("spent: %+v", s)
	}

	h.Quarantine = 0
	m.Close()
	m = h.open()
	if _, err := m.Admit(ctx, alice); err != nil {
		t.Fatal(err)
	}
	e = h.quarantine(m, alice)
	h.now = h.now.Add(1e6 * time.Hour)
	free("uids are kept for ever", proof(e), xos.NotSupported)
}

// A freed id goes back to whom it belonged to, and to others only when there
// is none that nobody had, the longest free one first.
func TestWhoGetsAFreeID(t *testing.T) {
	h := newHost(t)
	h.Quarantine, h.First, h.Last = time.Hour, 5000, 5003
	m := h.open()
	ctx := context.Background()
	admit := func(name string) uint32 {
		t.Helper()
		id, err := m.Admit(ctx, xos.Account{User: xos.UserID(name), VO: "physics"})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	free := func(name string) {
		t.Helper()
		a := xos.Account{User: xos.UserID(name), VO: "physics"}
		e := h.quarantine(m, a)
		h.now = h.now.Add(2 * time.Hour)
		if err := m.Free(a, proof(e)); err != nil {
			t.Fatal(err)
		}
	}
	a, b := admit("alice"), admit("bob")
	free("bob")
	free("alice")
	c, d := admit("carol"), admit("dave")
	if a == c || a == d || b == c || b == d {
		t.Fatalf("%d %d %d %d: given again while others were left", a, b, c, d)
	}
	m.Close()
	m = h.open()
	if got := admit("alice"); got != a {
		t.Errorf("alice had %d, has %d", a, got)
	}
	free("alice")
	if got := admit("erin"); got != b {
		t.Errorf("%d was given, but %d has been free for longer", got, b)
	}
	if got := admit("frank"); got != a {
		t.Errorf("frank has %d", got)
	}
	if _, err := m.Preview(alice); !xos.Is(err, xos.TooLarge) {
		t.Errorf("a fifth: %v", err)
	}
	m.Close()
	m = h.open()
	if e, ok := m.User(xos.Account{User: "erin", VO: "physics"}); !ok || e.ID != b || len(m.Spent()) != 0 {
		t.Errorf("after a restart: %+v, %+v", e, m.Spent())
	}
}

// A login that was told a uid which is freed before it ends is refused.
func TestFreedDuringALogin(t *testing.T) {
	h := newHost(t)
	h.Quarantine = time.Hour
	m := h.open()
	ctx := context.Background()
	if _, err := h.login(m, alice); err != nil {
		t.Fatal(err)
	}
	e := h.quarantine(m, alice)
	h.now = h.now.Add(2 * time.Hour)
	p := young(t)
	p.Start -= 2 // it runs already
	if told, err := m.Preview(alice); err != nil || told != e.ID {
		t.Fatal(told, err)
	}
	if err := m.Free(alice, proof(e)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Commit(ctx, alice, p); !xos.Is(err, xos.Unavailable) {
		t.Errorf("nothing is reserved: %v", err)
	}
	if _, err := m.Preview(alice); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Commit(ctx, alice, p); !xos.Is(err, xos.Unavailable) {
		t.Errorf("it may have been told the former: %v", err)
	}
	if _, err := h.login(m, alice); err != nil {
		t.Errorf("the next try: %v", err)
	}
}
