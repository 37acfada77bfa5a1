package overlay_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus/bustest"
	"github.com/xtreemos/xos/srds"
	"github.com/xtreemos/xos/srds/overlay"
)

// machine joins the bus and answers until the test ends.
func machine(t *testing.T, b *bustest.Bus, name string, a srds.Attributes) *overlay.Overlay {
	t.Helper()
	o, err := overlay.New(overlay.Config{Settle: 200 * time.Millisecond}, b.Connect(name+"/node"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Answer(ctx, func() srds.Attributes { return a }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		o.Close()
	})
	return o
}

func node(name string, cpus float64, vos ...xos.VOName) srds.Attributes {
	return srds.Attributes{Node: xos.NodeID(name), Address: name + ":7444", Number: map[string]float64{"cpus": cpus},
		Text: map[string]string{"arch": "amd64"}, VOs: vos}
}

// find asks until the whole grid has answered: machines join at their own pace.
func find(t *testing.T, o *overlay.Overlay, q srds.Query, max, want int, refused map[string]int) []string {
	t.Helper()
	var names []string
	var no map[string]int
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		found, r, err := o.Find(t.Context(), q, max, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		names, no = nil, r
		for _, f := range found {
			names = append(names, string(f.Node))
		}
		slices.Sort(names)
		if len(names) == want && (refused == nil || cmp.Equal(no, refused)) {
			return names
		}
	}
	t.Fatalf("found %v, refused %v; want %d, %v", names, no, want, refused)
	return nil
}

func TestMachinesAnswerByThemselves(t *testing.T) {
	b := bustest.New(t)
	asker := machine(t, b, "n1", node("n1", 1, "*"))
	machine(t, b, "n2", node("n2", 4, "physics"))
	machine(t, b, "n3", node("n3", 8, "physics", "chemistry"))
	machine(t, b, "n4", node("n4", 8, "chemistry"))
	two := 2.0
	for _, tt := range []struct {
		query   srds.Query
		max     int
		want    []string
		refused map[string]int
	}{
		{srds.Query{VO: "physics"}, 10, []string{"n1", "n2", "n3"}, map[string]int{"vo": 1}},
		{srds.Query{VO: "physics", Ranges: []srds.Range{{Attribute: "cpus", Min: &two}}}, 10, []string{"n2", "n3"}, map[string]int{"vo": 1, "cpus": 1}},
		{srds.Query{VO: "physics", Ranges: []srds.Range{{Attribute: "arch", Texts: []string{"riscv64"}}}}, 10, nil, map[string]int{"vo": 1, "arch": 3}},
		{srds.Query{VO: "biology"}, 10, []string{"n1"}, map[string]int{"vo": 3}},
	} {
		got := find(t, asker, tt.query, tt.max, len(tt.want), tt.refused)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%+v: %s", tt.query, d)
		}
	}
	if got := find(t, asker, srds.Query{VO: "physics"}, 1, 1, nil); len(got) != 1 {
		t.Errorf("asked for one machine, got %v", got)
	}
}

func TestNobodySpeaksForAnother(t *testing.T) {
	b := bustest.New(t)
	asker := machine(t, b, "n1", node("n1", 1, "physics"))
	machine(t, b, "evil", node("n2", 64, "physics"))
	machine(t, b, "n3", node("n3", 1, "chemistry")) // shows that the others had time
	if got := find(t, asker, srds.Query{VO: "physics"}, 10, 1, map[string]int{"vo": 1}); got[0] != "n1" {
		t.Errorf("found %v", got)
	}
}

func TestWithoutBusThisMachineIsFound(t *testing.T) {
	b := bustest.New(t)
	o := machine(t, b, "n1", node("n1", 1, "physics"))
	find(t, o, srds.Query{VO: "physics"}, 1, 1, nil)
	b.Stop()
	got := find(t, o, srds.Query{VO: "physics"}, 5, 1, nil)
	if got[0] != "n1" {
		t.Errorf("found %v", got)
	}
	b.Start()
	find(t, o, srds.Query{VO: "physics"}, 5, 1, nil)
}

func TestBadQueries(t *testing.T) {
	b := bustest.New(t)
	o := machine(t, b, "n1", node("n1", 1, "physics"))
	for _, q := range []srds.Query{
		{}, {VO: "Phys ics"}, {VO: "physics", Ranges: make([]srds.Range, 65)},
		{VO: "physics", Ranges: []srds.Range{{Attribute: "a\nb"}}},
	} {
		if _, _, err := o.Find(t.Context(), q, 1, time.Millisecond); err == nil {
			t.Errorf("%+v was asked", q)
		}
	}
	// What is malformed on the bus is dropped, and the machine still answers.
	evil := b.Connect("evil")
	for _, data := range []string{"", "{", `{"query":{"vo":"physics"},"token":"../x"}`, fmt.Sprintf(`{"query":{"vo":%q}}`, make([]byte, 20_000))} {
		if err := evil.Publish(t.Context(), "rss.query", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	find(t, o, srds.Query{VO: "physics"}, 1, 1, nil)
}
