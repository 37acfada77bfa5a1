package account

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

// ranges is a history of subordinate ids, too.
type ranges struct {
	*history
	of    map[xos.Account]uint32 // the range that was told of an account last
	owner map[uint32]xos.Account // whose a range was last
	freed map[uint32]bool        // with a proof since, for sure or perhaps
	moved int                    // how often a range went to another
}

func (h *ranges) provide(a xos.Account) {
	if err := h.m.Provide(context.Background(), a); err != nil && !xos.Is(err, xos.TooLarge) && h.disk.left > 1<<20 {
		h.t.Fatal(err)
	}
	first, ok := h.m.SubIDsOf(a)
	if !ok {
		return
	}
	if was := h.of[a]; was != 0 && was != first && h.owner[was] == a && !h.freed[was] {
		h.t.Fatalf("%s had %d, has %d", a, was, first)
	}
	if last, had := h.owner[first]; had && last != a {
		if !h.freed[first] {
			h.t.Fatalf("%d of %s was given to %s without a proof", first, last, a)
		}
		h.moved++
	}
	h.of[a], h.owner[first] = first, a
	delete(h.freed, first)
	held := map[uint32]string{}
	for _, e := range append(h.m.Users(), h.m.Spent()...) {
		if other, twice := held[e.Sub]; e.Sub != 0 && twice {
			h.t.Fatalf("%d is %s's and %s's", e.Sub, other, e.Name)
		}
		held[e.Sub] = e.Name
		if h.cfg.SubIDs.has(e.ID) {
			h.t.Fatalf("%s has a subordinate id: %d", e.Name, e.ID)
		}
	}
}

func (h *ranges) step() {
	a := xos.Account{User: xos.UserID(fmt.Sprint("u", h.rnd.IntN(90))), VO: "physics"}
	if h.rnd.IntN(6) == 0 {
		h.provide(a)
	}
	before := map[uint32]uint32{}
	for _, e := range h.m.Users() {
		if e.State == Quarantined && e.Sub != 0 {
			before[e.ID] = e.Sub
		}
	}
	h.history.step()
	for id, first := range before {
		if _, proven := h.proven[id]; proven {
			h.freed[first] = true
		}
	}
}

// TestManySubIDs: no range is ever two accounts', and none is given to another
// without the proof that its former holder left nothing, whenever the power
// fails.
func TestManySubIDs(t *testing.T) {
	n := 60_000
	if testing.Short() {
		n = 20_000
	}
	const count = 8
	dir := t.TempDir()
	for _, name := range []string{"passwd", "group"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("root:x:0:0:::\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := uint32(1 << 30)
	h := &ranges{of: map[xos.Account]uint32{}, owner: map[uint32]xos.Account{}, freed: map[uint32]bool{},
		history: newHistory(t, 5, Config{Dir: dir, Etc: dir, First: first, Last: first + 2*count*SubIDs - 1, Quarantine: time.Hour, Reservations: 12,
			SubIDs: Pool{First: first + count*SubIDs, Last: first + 2*count*SubIDs - 1}})}
	for range n {
		h.step()
	}
	t.Logf("%v, %d ranges given, %d times to another", h.ops, len(h.owner), h.moved)
	if len(h.owner) != count || h.moved < n/1000 || h.ops["crash"] < n/500 {
		t.Errorf("too little happened: %d ranges, %d times to another, %v", len(h.owner), h.moved, h.ops)
	}
}
