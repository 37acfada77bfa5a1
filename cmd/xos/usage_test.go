package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func TestUsageIsShown(t *testing.T) {
	begin := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	var sums usage.Sums
	for _, r := range []*xosv1.UsageRecord{
		{Job: "core-1", Account: "alice@physics", Node: "node1", Credential: "77", Name: "=cmd()", Executable: "/bin/sim\x1b[2J\n", Started: timestamppb.New(begin),
			Submitted: timestamppb.New(begin), Until: timestamppb.New(begin.Add(90 * time.Second)), Final: true, CpuUserMicros: 1500000, CpuSystemMicros: 250000,
			MemoryPeakBytes: 3 << 20, SentBytes: 1 << 30, Executions: 4, Uncounted: []string{"opens", "disk"}},
		{Stay: "stay:0123456789abcdef0123456789abcdef", Account: "alice@physics", Node: "node1", Logins: 3, Submitted: timestamppb.New(begin), Started: timestamppb.New(begin),
			Until: timestamppb.New(begin.Add(time.Hour)), Final: true, Incomplete: true, Executions: 50, ReceivedBytes: 7},
		{Job: "core-2", Account: "alice@physics", Node: "node1", Executable: "-x", Submitted: timestamppb.New(begin), Started: timestamppb.New(begin), Until: timestamppb.New(begin.Add(30 * time.Second))},
	} {
		sums.Add(r)
	}
	shown := func(args []string, form usageForm) string {
		var out bytes.Buffer
		c := newRootCommand()
		c.SetOut(&out)
		if err := c.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if err := showUsage(c, &sums, form); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if text := shown(nil, usageForm{}); !strings.Contains(text, "physics  alice  2 (1 running)  2m0s  1 (1 of all incomplete)  3       1h0m0s  0:01.75  3.0 MiB") {
		t.Error(text)
	}
	if text := shown(nil, usageForm{jobs: true}); strings.Contains(text, "\x1b") || !strings.Contains(text, "(running)") || strings.Contains(text, "stay:") || !strings.Contains(text, "opens,disk") {
		t.Errorf("%q", text)
	}
	if text := shown(nil, usageForm{sessions: true}); strings.Contains(text, "core-") || !strings.Contains(text, "3 logins") || !strings.Contains(text, "(incomplete)") {
		t.Errorf("%q", text)
	}
	var members []map[string]any
	if err := json.Unmarshal([]byte(shown([]string{"--json"}, usageForm{})), &members); err != nil || len(members) != 1 || members[0]["sent_bytes"] != float64(1<<30) {
		t.Errorf("%v, %v", members, err)
	}
	rows, err := csv.NewReader(strings.NewReader(shown(nil, usageForm{csv: true}))).ReadAll()
	want := []string{"physics", "alice", "2", "1", "1", "120", "1.5", "0.25", "3145728", "0", "0", "7", "1073741824", "54", "0", "0", "1", "0", "3", "3600"}
	if err != nil || len(rows) != 2 || !cmp.Equal(rows[1], want) {
		t.Errorf("%v\n%q", err, rows)
	}
	rows, err = csv.NewReader(strings.NewReader(shown(nil, usageForm{csv: true, jobs: true}))).ReadAll()
	want = []string{"core-1", "physics", "alice", "77", "node1", "'=cmd()", `/bin/sim\x1b[2J\n`, "2026-11-26T12:00:00Z", "2026-11-26T12:00:00Z", "2026-11-26T12:01:30Z",
		"true", "false", "90", "1.5", "0.25", "3145728", "0", "0", "0", "1073741824", "4", "0", "0", "opens disk", "", "0"}
	// By time: the one that still runs was counted first.
	if err != nil || len(rows) != 3 || len(rows[0]) != len(want) || !cmp.Equal(rows[2], want) || rows[1][6] != "'-x" {
		t.Errorf("%v\n%q", err, rows)
	}
}

func TestUsageRefusesWhatIsNoTime(t *testing.T) {
	for _, args := range [][]string{{"--since", "yesterday"}, {"--until", "x"}, {"--csv", "--json"}} {
		c := newRootCommand()
		c.SetArgs(append([]string{"usage"}, args...))
		if err := c.Execute(); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
