package audit_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
)

// byActor takes the actor for the origin: known if it is an account.
func byActor(_ context.Context, r audit.Record) audit.Origin {
	_, err := xos.ParseAccount(r.Actor)
	return audit.Origin{Name: r.Actor, Known: err == nil}
}

func refused(b *audit.Bounded, t *testing.T, actor string, n int) {
	t.Helper()
	for i := range n {
		if err := b.Append(t.Context(), audit.Record{Actor: actor, Action: "add", Subject: fmt.Sprint(i), Reason: "may not"}); err != nil {
			t.Fatal(err)
		}
	}
}

// ledger is what a log says: lines and unwritten refusals by actor.
type ledger struct {
	lines, unwritten map[string]int
	all, notices     int
}

func (l ledger) of(actor string) int { return l.lines[actor] + l.unwritten[actor] }

func read(t *testing.T, path string) ledger {
	t.Helper()
	l := ledger{lines: map[string]int{}, unwritten: map[string]int{}}
	entries, err := audit.Query(path, audit.Filter{Last: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l.all++
		n, counts := e.Detail["unwritten"]
		switch {
		case counts:
			unwritten, err := strconv.Atoi(n)
			if err != nil || e.Allowed || e.Action != "audit.refused" {
				t.Errorf("%+v, %v", e, err)
			}
			l.unwritten[e.Actor] += unwritten
		case e.Action == "audit.refused":
			l.notices++
		default:
			l.lines[e.Actor]++
		}
	}
	if _, _, err := audit.Verify(path); err != nil {
		t.Error(err)
	}
	return l
}

// TestRefusalsAreBounded: one origin has few lines, however often it is refused,
// and each refusal is a line or counted; what was allowed or admitted is a line.
func TestRefusalsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	b := audit.Bound(open(t, path), byActor)
	const many, writers = 5000, 4
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() { refused(b, t, "192.0.2.1", many/writers) })
	}
	wg.Wait()
	refused(b, t, "198.51.100.7", 3)
	for _, r := range []audit.Record{{Actor: "root", Action: "ban", Allowed: true}, {Actor: "root", Action: "ban", Admitted: true, Reason: "not found"}} {
		for range 40 {
			if err := b.Append(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := read(t, path)
	if before.lines["192.0.2.1"] != 20 || before.notices != 1 || before.lines["198.51.100.7"] != 3 || before.lines["root"] != 80 {
		t.Errorf("before the window ends: %+v", before)
	}
	if err := b.Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := read(t, path); l.of("192.0.2.1") != many || l.unwritten["192.0.2.1"] != many-20 || l.all != before.all+1 {
		t.Errorf("after it: %+v", l)
	}
	// The next window has room again, and its count comes with the log's end.
	refused(b, t, "192.0.2.1", 25)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if l := read(t, path); l.lines["192.0.2.1"] != 40 || l.of("192.0.2.1") != many+25 {
		t.Errorf("after the log's end: %+v", l)
	}
}

// TestStrangersHideNobody: however many addresses are refused without end, the
// lines are few, what each was refused or all the rest is counted, and whoever is
// known is told of by name.
func TestStrangersHideNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	b := audit.Bound(open(t, path), byActor)
	const strangers, each = 3000, 5
	for i := range strangers {
		refused(b, t, fmt.Sprintf("10.0.%d.%d", i/250, i%250), each)
	}
	refused(b, t, "10.9.9.9", 400)
	for i := range 250 { // members: more than have more than their first line
		refused(b, t, fmt.Sprintf("m%d@physics", i), 2)
	}
	refused(b, t, "mallory@biology", 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	l := read(t, path)
	sum, ofStrangers, lines := 0, 0, 0
	for actor := range l.lines {
		if strings.Contains(actor, "@") && l.lines[actor] < 1 {
			t.Errorf("%s has no line", actor)
		}
		if !strings.Contains(actor, "@") {
			ofStrangers += l.lines[actor]
		}
		lines += l.lines[actor]
	}
	if len(l.lines) < 251 || l.lines["mallory@biology"] != 1 {
		t.Errorf("a member has no line: %d have", len(l.lines))
	}
	sum = lines
	for _, n := range l.unwritten {
		sum += n
	}
	if want := strangers*each + 400 + 501; sum != want {
		t.Errorf("%d refusals are told, want %d", sum, want)
	}
	if ofStrangers != 200 || l.all > 200+(251+100)+2*21+2 {
		t.Errorf("%d lines, %d of strangers", l.all, ofStrangers)
	}
	if l.notices != 2 {
		t.Errorf("%d lines say that counting began", l.notices)
	}
}

// TestWindowsEnd: a count comes into the log by itself.
func TestWindowsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		b := audit.Bound(open(t, path), byActor)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		refused(b, t, "192.0.2.1", 30)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if l := read(t, path); l.unwritten["192.0.2.1"] != 10 {
			t.Errorf("%+v", l)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestWhatCannotBeToldStaysCounted: a log that takes nothing loses no count.
func TestWhatCannotBeToldStaysCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	b := audit.Bound(l, byActor)
	refused(b, t, "192.0.2.1", 30)
	l.Close()
	for range 2 {
		if err := b.Tell(t.Context()); !xos.Is(err, xos.Unavailable) {
			t.Errorf("a closed log: %v", err)
		}
	}
	if err := b.Append(t.Context(), audit.Record{Actor: "192.0.2.1", Action: "add"}); err == nil {
		t.Error("a refusal with a line was taken by a closed log")
	}
	b.Log = open(t, path)
	if err := b.Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got.of("192.0.2.1") != 31 {
		t.Errorf("%+v", got)
	}
}
