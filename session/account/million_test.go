package account

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

// history is what a machine told others over its life, whatever became of the
// map's process and of the machine's power meanwhile.
type history struct {
	t      *testing.T
	rnd    *rand.Rand
	cfg    Config
	clock  time.Time
	disk   *frail
	m      *Map
	live   map[xos.Account]uint32 // told, and not known to be freed
	doubt  map[xos.Account]bool   // freed perhaps: the power failed meanwhile
	proven map[uint32]xos.Account // whose trace is proven gone, and was not given since
	had    map[uint32]bool        // ids that somebody ever had
	last   map[uint32]xos.Account // who had it last
	ops    map[string]int
	again  int // how often an id went to another
}

const millionIDs = 48

func newHistory(t *testing.T, seed uint64, cfg Config) *history {
	h := &history{t: t, rnd: rand.New(rand.NewPCG(seed, 9)), cfg: cfg, clock: time.Unix(1e9, 0), disk: newFrail(),
		live: map[xos.Account]uint32{}, doubt: map[xos.Account]bool{}, proven: map[uint32]xos.Account{}, had: map[uint32]bool{},
		last: map[uint32]xos.Account{}, ops: map[string]int{}}
	h.disk.left = 1 << 40
	h.reopen()
	return h
}

func (h *history) reopen() {
	m, err := open(h.cfg, func() time.Time { return h.clock }, h.disk)
	if err != nil {
		h.t.Fatalf("the map cannot be read: %v", err)
	}
	h.m = m
	// What was told before the crash holds; what was in doubt is settled.
	for a, id := range h.live {
		e, ok := m.User(a)
		switch {
		case ok && e.ID == id:
		case !ok && h.doubt[a]:
			delete(h.live, a)
		default:
			h.t.Fatalf("%s had %d, now %+v, %v", a, id, e, ok)
		}
	}
	clear(h.doubt)
}

// crash is the failure of the power, torn and reordered as disks do it.
func (h *history) crash() {
	h.disk.tear = []int{0, 1, 60, 1 << 20}[h.rnd.IntN(4)]
	h.disk = h.disk.crash(h.rnd.IntN(2) == 0)
	h.disk.left = 1 << 40
	h.reopen()
}

func (h *history) admit(a xos.Account) {
	id, err := h.m.Admit(context.Background(), a)
	if err != nil {
		return
	}
	if was, ok := h.live[a]; ok && was != id {
		h.t.Fatalf("%s had %d, has %d", a, was, id)
	}
	for other, held := range h.live {
		if held == id && other != a {
			h.t.Fatalf("%d is %s's and %s's", id, other, a)
		}
	}
	if last, ok := h.last[id]; ok && last != a {
		if h.proven[id] != last {
			h.t.Fatalf("%d of %s was given to %s without a proof", id, last, a)
		}
		if len(h.had) < millionIDs {
			h.t.Fatalf("%d was given again, when only %d of %d had been given", id, len(h.had), millionIDs)
		}
	}
	if last, ok := h.last[id]; ok && last != a {
		h.again++
	}
	delete(h.proven, id)
	h.live[a], h.had[id], h.last[id] = id, true, a
}

func (h *history) free(a xos.Account) error {
	e, ok := h.m.User(a)
	if !ok {
		return nil
	}
	p := Proof{ID: e.ID, Since: e.Since, Search: "search-x"}
	switch h.rnd.IntN(8) {
	case 0:
		p.Search = ""
	case 1:
		p.Since = p.Since.Add(-time.Second)
	case 2:
		p.ID++
	}
	good := e.State == Quarantined && p.Search != "" && p.ID == e.ID && p.Since.Equal(e.Since) && !h.clock.Before(e.Since.Add(h.cfg.Quarantine))
	if good {
		h.proven[e.ID] = a
	}
	err := h.m.Free(a, p)
	switch {
	case err == nil && !good:
		h.t.Fatalf("%+v was freed at %v by %+v", e, h.clock, p)
	case err == nil:
		delete(h.live, a)
	case good: // the disk failed
		h.doubt[a] = true
	}
	return err
}

// step does one thing at random. Now and then the power fails in its midst.
func (h *history) step() {
	fails := h.rnd.IntN(300) == 0
	if fails {
		h.disk.left = h.rnd.IntN(3)
	}
	a := xos.Account{User: xos.UserID(fmt.Sprint("u", h.rnd.IntN(90))), VO: "physics"}
	op := []string{"admit", "admit", "preview", "close", "close", "quarantine", "quarantine", "free", "free", "free", "time", "restart"}[h.rnd.IntN(12)]
	h.ops[op]++
	switch op {
	case "admit":
		h.admit(a)
	case "preview":
		h.m.Preview(a)
	case "close":
		h.m.Move(a, Active, Closing)
	case "quarantine":
		h.m.Move(a, Closing, Quarantined)
	case "free":
		h.free(a)
	case "time":
		h.clock = h.clock.Add(time.Duration(h.rnd.IntN(90)) * time.Minute)
	case "restart":
		if h.rnd.IntN(20) == 0 {
			fails = true
		}
	}
	if fails {
		h.ops["crash"]++
		h.crash()
	}
}

// TestMillion does a million things to maps with so few ids that they are used
// again and again: none is ever held twice, and none given to another without
// the proof that its former holder left nothing, whenever the power fails.
func TestMillion(t *testing.T) {
	n := 500_000
	if testing.Short() {
		n = 20_000
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range []string{"passwd", "group"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("root:x:0:0:::\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h := newHistory(t, seed, Config{Dir: dir, Etc: dir, First: 1879048192, Last: 1879048192 + millionIDs - 1, Quarantine: time.Hour, Reservations: 12})
			for range n {
				h.step()
			}
			t.Logf("%v, %d ids given again", h.ops, h.again)
			if len(h.had) != millionIDs || h.ops["crash"] < n/500 || h.again < n/1000 {
				t.Errorf("too little happened: %d ids given, %v, %d again", len(h.had), h.ops, h.again)
			}
		})
	}
}
