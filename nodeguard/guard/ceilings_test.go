package guard_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
)

var small = guard.Machine{CPUs: 2000, Memory: 1 << 30, Swap: 1 << 20, Processes: 1000}

func TestPortions(t *testing.T) {
	for _, c := range []struct {
		name string
		in   guard.Portions
		want guard.Ceilings
		bad  bool
	}{
		{"none", guard.Portions{}, guard.Ceilings{}, false},
		{"parts", guard.Portions{CPUs: "75%", Memory: "50%", Processes: "10%"}, guard.Ceilings{CPUs: 1500, Memory: 1 << 29, Swap: 1 << 19, Processes: 100}, false},
		{"amounts", guard.Portions{CPUs: "0.5", Memory: "20M", Processes: "70", IO: "64.5K"}, guard.Ceilings{CPUs: 500, Memory: 20 << 20, Swap: 20 << 20, Processes: 70, IO: 66048}, false},
		{"more than all", guard.Portions{Memory: "101%"}, guard.Ceilings{}, true},
		{"part of a disk", guard.Portions{IO: "10%"}, guard.Ceilings{}, true},
		{"nothing", guard.Portions{CPUs: "0"}, guard.Ceilings{}, true},
		{"part of a process", guard.Portions{Processes: "0.4"}, guard.Ceilings{}, true},
		{"unit forgotten", guard.Portions{Memory: "16"}, guard.Ceilings{}, true},
		{"part too small", guard.Portions{Memory: "1%"}, guard.Ceilings{}, true},
		{"negative", guard.Portions{Processes: "-5"}, guard.Ceilings{}, true},
		{"no number", guard.Portions{Memory: "much"}, guard.Ceilings{}, true},
		{"CPUs in giga", guard.Portions{CPUs: "2G"}, guard.Ceilings{}, true},
		{"infinite", guard.Portions{Memory: "Inf"}, guard.Ceilings{}, true},
		{"overflow", guard.Portions{Memory: "9999999999T"}, guard.Ceilings{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.in.On(small)
			if (err != nil) != c.bad {
				t.Fatalf("error %v, want one: %v", err, c.bad)
			}
			if diff := cmp.Diff(c.want, got); diff != "" && !c.bad {
				t.Error(diff)
			}
		})
	}
}

func TestUnboundIsTold(t *testing.T) {
	features := []nodeguard.Feature{{Name: "cgroup"}, {Name: "controller cpu"}, {Name: "controller memory"},
		{Name: "controller pids", Have: true}, {Name: "limits of logins"}}
	var names []string
	for _, f := range guard.Unbound(guard.Ceilings{Memory: 1, Processes: 1}, guard.Ceilings{IO: 1}, features) {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"controller memory", "limits of logins"}, names); diff != "" {
		t.Error(diff)
	}
	if got := guard.Unbound(guard.Ceilings{}, guard.Ceilings{}, features); len(got) != 0 {
		t.Errorf("nothing is wanted, and %v is told", got)
	}
}

func FuzzPortion(f *testing.F) {
	for _, text := range []string{"75%", "16G", "1e3", "NaN", "-1", "0x10", "K", "%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := guard.Portions{Memory: text, CPUs: text, Processes: text, IO: text}.On(small)
		if err != nil {
			return
		}
		for _, n := range []int64{c.CPUs, c.Memory, c.Swap, c.Processes, c.IO} {
			if n < 0 || n > 1<<60 || (text == "") != (n == 0) {
				t.Errorf("%q is %d", text, n)
			}
		}
	})
}
