package account_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

// TestVO: the accounts of a VO are those that have a uid, in the order of uids,
// whatever came and went, and after a restart too.
func TestVO(t *testing.T) {
	h := newHost(t)
	h.Quarantine = time.Hour
	m := h.open()
	want := map[string]uint32{}
	check := func() {
		t.Helper()
		users, _ := m.VO("physics")
		var last uint32
		for _, u := range users {
			if want[u.Name] != u.ID || u.ID <= last {
				t.Fatalf("%s has %d, want %d; after %d", u.Name, u.ID, want[u.Name], last)
			}
			last = u.ID
		}
		if len(users) != len(want) {
			t.Fatalf("%d users, want %d", len(users), len(want))
		}
	}
	check()
	rnd := rand.New(rand.NewPCG(1, 2))
	for step := range 150 {
		a := xos.Account{User: xos.UserID(fmt.Sprintf("u%d", rnd.IntN(30))), VO: "physics"}
		if _, ok := want[a.String()]; ok && rnd.IntN(2) == 0 {
			e := h.quarantine(m, a)
			h.now = h.now.Add(2 * time.Hour)
			if err := m.Free(a, proof(e)); err != nil {
				t.Fatal(err)
			}
			delete(want, a.String())
		} else {
			uid, err := m.Admit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			want[a.String()] = uid
		}
		if _, err := m.Admit(t.Context(), xos.Account{User: a.User, VO: "astrophysics"}); err != nil {
			t.Fatal(err)
		}
		if step%7 == 0 {
			check()
		}
	}
	check()
	m.Close()
	m = h.open()
	check()
}
