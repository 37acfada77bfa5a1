package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFigureText(t *testing.T) {
	for _, c := range []struct {
		name string
		f    figure
		want string
	}{
		{"the ratio is the median of the rounds' ratios, not the medians' ratio",
			ratio("r", []float64{10, 20, 90}, []float64{10, 5, 30}, "ms"),
			"BENCH r 3 ratio\n# 3 rounds, 1 to 4; medians 20 and 10 ms\n"},
		{"an even number of rounds", newFigure("v", "1/s", []float64{4, 1, 3, 2}, ""), "BENCH v 2.5 1/s\n# 4 rounds, 1 to 4\n"},
		{"four digits", newFigure("v", "ms", []float64{123.456}, "so"), "BENCH v 123.5 ms\n# 1 round, 123.5 to 123.5; so\n"},
		{"nothing", newFigure("v", "%", []float64{0}, ""), "BENCH v 0 %\n# 1 round, 0 to 0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := c.f.text(&b); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("got %q, want %q", b.String(), c.want)
			}
		})
	}
}

func TestFigureJSON(t *testing.T) {
	var b strings.Builder
	if err := newFigure("v", "ms", []float64{1, 2, 9}, "").json(&b); err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"v","value":2,"unit":"ms","rounds":3,"min":1,"max":9}` + "\n"; b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
}

func TestColumnsRefuses(t *testing.T) {
	for _, text := range []string{"", "1\n", "1 2\n3\n", "1 x\n", "1 0\n", "1 -2\n", "1 2 3\n"} {
		if got, err := columns(text, 2); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestParseUsage(t *testing.T) {
	const stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 100 1000 10"
	got, err := parseUsage("7\n" + stat + "\nVmRSS:\t  1000 kB\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (usage{pid: "7", processor: 2 * time.Second, memory: 1024000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, text := range []string{"", "7\n", "7\n7 (a) S\nVmRSS: 1 kB", "7\n" + stat + "\n", "no ) here\n\n\n"} {
		if got, err := parseUsage(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

// TestRounds: the lines of a Go benchmark are read, and no others.
func TestRounds(t *testing.T) {
	out := "goos: linux\nBenchmarkX/rebuild-2   10   52500000 ns/op\nBenchmarkX/change-2  10  250000 ns/op\nBenchmarkX/rebuild-2   10   47000000 ns/op  3 B/op\nBenchmarkX/rebuild-2 broken\nPASS\n"
	if got := rounds(out, "/rebuild"); !slices.Equal(got, []float64{52.5, 47}) {
		t.Errorf("got %v", got)
	}
}

// TestNamesFigures: every source has its figure, a ratio says how much faster
// the second is, and one with a source that is not there is left out.
func TestNamesFigures(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range slices.Concat(alone, onGrid) {
		for _, name := range m.names {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
	for _, withPeers := range []bool{false, true} {
		all := sources(withPeers)
		table := make([][]float64, len(all))
		for i, s := range all {
			table[i] = []float64{100}
			switch s.name {
			case "files":
				table[i][0] = 600
			case "sssd":
				table[i][0] = 300
			}
		}
		got := map[string]float64{}
		for _, f := range namesFigures(all, table) {
			got[f.Name] = f.Value
			if !slices.Contains(names.names, f.Name) {
				t.Errorf("%s cannot be asked for", f.Name)
			}
		}
		if got["nss_hit_ratio"] != 6 || got["nss_foreign_miss_ns"] != 100 {
			t.Errorf("got %v", got)
		}
		if ratio, ok := got["nss_sssd_ratio"]; ok != withPeers || ok && ratio != 3 {
			t.Errorf("got %v", got)
		}
	}
}
