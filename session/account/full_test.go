package account

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

const fullIDs = 1 << 16

// fullMap writes the journal of a machine that has given all of its ids away: half
// of them are in use, a quarter is closing, a quarter rests.
func fullMap(t *testing.T, cfg Config, began time.Time) {
	t.Helper()
	states := []State{Active, Quarantined, Active, Closing}
	records := make([]record, fullIDs)
	for i := range records {
		records[i] = record{User: visitor(i).String(), ID: cfg.First + uint32(i), State: states[i%len(states)], Time: began, Seen: began, Boot: strings.Repeat("b", 36), Ticks: 12345678}
	}
	j, err := newJournal(directory(cfg.Dir), records)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.f.Close(); err != nil {
		t.Fatal(err)
	}
}

func visitor(i int) xos.Account {
	return xos.Account{User: xos.UserID(fmt.Sprintf("visitor%05d", i)), VO: xos.VOName(fmt.Sprint("vo", i%20))}
}

// TestEveryIDGiven is a machine on which no id is left: it starts, those who have one
// are served, who has none is told so at once and in words, again and again; and an
// id that a search has freed goes to the next one, once.
func TestEveryIDGiven(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"passwd", "group"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("root:x:0:0:::\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clock := time.Unix(1e9, 0)
	now := func() time.Time { return clock }
	cfg := Config{Dir: dir, Etc: dir, First: session.FirstID, Last: session.FirstID + fullIDs - 1, Quarantine: time.Hour}
	fullMap(t, cfg, clock)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var m *Map
	reopen := func() {
		t.Helper()
		if m != nil {
			m.Close()
		}
		var err error
		begin := time.Now()
		if m, err = Open(cfg, now); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(dir, journalName))
		if err != nil {
			t.Fatal(err)
		}
		took, held := time.Since(begin), heap()-before
		t.Logf("opened in %v: %d KiB of journal, %d KiB of memory", took.Round(time.Millisecond), st.Size()>>10, held>>10)
		if took > 20*time.Second || st.Size() > 20<<20 || held > 64<<20 {
			t.Error("that is too much")
		}
	}
	reopen()
	defer func() { m.Close() }()
	ctx := context.Background()
	late := xos.Account{User: "late", VO: "vo1"}
	full := func(reserved int) {
		t.Helper()
		for what, try := range map[string]func() error{
			"a lookup": func() error { _, err := m.Preview(late); return err },
			"a job":    func() error { _, err := m.Admit(ctx, late); return err },
			"a group":  func() error { _, err := m.Groups(ctx, []string{"vo1:new"}); return err },
		} {
			begin := time.Now()
			const times = 200
			for range times {
				if err := try(); !xos.Is(err, xos.TooLarge) || !strings.Contains(err.Error(), "65536") || !strings.Contains(err.Error(), "xos uid sweep") {
					t.Fatalf("%s: %v", what, err)
				}
			}
			each := time.Since(begin) / times
			t.Logf("%s is refused in %v", what, each)
			if each > time.Millisecond {
				t.Errorf("%s: whoever asks for names can keep the machine busy: %v each", what, each)
			}
		}
		if len(m.held.all) != reserved || m.Known(late) {
			t.Error("something is kept of who was refused")
		}
	}
	full(0)
	for i := range 8 { // who has one, in whatever state, gets it
		if id, err := m.Admit(ctx, visitor(i)); err != nil || id != cfg.First+uint32(i) {
			t.Errorf("%s: %d, %v", visitor(i), id, err)
		}
	}
	clock = clock.Add(2 * time.Hour)
	free := func(i int) uint32 {
		t.Helper()
		e, ok := m.User(visitor(i))
		if !ok {
			t.Fatalf("%s has no id", visitor(i))
		}
		if err := m.Free(visitor(i), Proof{ID: e.ID, Since: e.Since, Search: "s"}); err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	id := free(9)
	if got, err := m.Admit(ctx, late); err != nil || got != id {
		t.Errorf("late gets %d of %d: %v", got, id, err)
	}
	late.User = "later"
	full(0)
	reopen()
	full(0)
	// Those who were there before come back first, though all rest.
	back := map[uint32]int{}
	for i := 13; i < 4000; i += 4 {
		back[free(i)] = i
	}
	for id, i := range back {
		if got, err := m.Preview(visitor(i)); err != nil || got != id {
			t.Fatalf("%s had %d, is told %d: %v", visitor(i), id, got, err)
		}
	}
	full(len(back))
	// What was only told is anybody's when its time is over.
	clock = clock.Add(time.Hour)
	if _, err := m.Preview(late); err != nil {
		t.Errorf("when nobody has come: %v", err)
	}
	if got := len(m.Users()) + len(m.Spent()); got != fullIDs {
		t.Errorf("%d ids of %d", got, fullIDs)
	}
}
