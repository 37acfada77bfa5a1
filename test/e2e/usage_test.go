package e2e

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// TestRootUsage: what a job sent and executed on another machine is in its
// record to the byte, though xos-node is killed there meanwhile, and those read
// it who may.
func TestRootUsage(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "vera", "lab")
	newMember(ctx, t, g, "viktor", "lab")
	const datagrams, bytes, programs = 50, 100, 20
	run := func(name, command string) string {
		return fmt.Sprintf("ssh vera@lab@node1 \"xsub --name %s --node node2 -- bash -c '%s'\"", name, command)
	}
	send := fmt.Sprintf("d=$(printf %%0%dd 0); for i in {1..%d}; do printf %%s \\$d > /dev/udp/127.0.0.1/9; done", bytes, datagrams)
	want(ctx, t, g, "vera", run("sends", strings.ReplaceAll(send, "$(", "\\$(")), 0)
	want(ctx, t, g, "vera", run("nothing", ":"), 0)
	want(ctx, t, g, "vera", run("executes", fmt.Sprintf("for i in {1..%d}; do /bin/true; done; :", programs)), 0)
	killed := make(chan error, 1)
	go func() {
		// Until node1 knows that it runs, it may be placed anew.
		for ctx.Err() == nil {
			out, _, err := story.Run(ctx, g.Node("client"), "vera", "ssh vera@lab@node1 xps")
			if err == nil && strings.Contains(out, "running") {
				break
			}
		}
		_, err := g.Node("node2").KillMain(ctx, "xos-node")
		killed <- err
	}()
	// sleep is a program too.
	want(ctx, t, g, "vera", run("killed", fmt.Sprintf("for i in {1..%d}; do /bin/true; done; sleep 5; for i in {1..%d}; do /bin/true; done; :", programs, programs)), 0)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}

	// read gives the records that a command prints, by the jobs' names.
	columns := map[string]int{}
	read := func(out string) map[string][]string {
		t.Helper()
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil || len(rows) == 0 {
			t.Fatalf("%v: %s", err, out)
		}
		for i, c := range rows[0] {
			columns[c] = i
		}
		list := map[string][]string{}
		for _, row := range rows[1:] {
			list[row[columns["name"]]] = row
		}
		return list
	}
	of := func(row []string, column string) int {
		t.Helper()
		n, err := strconv.Atoi(row[columns[column]])
		if err != nil {
			t.Fatalf("%s of %q: %v", column, row, err)
		}
		return n
	}
	const command = "xos usage --jobs --csv"
	var jobs map[string][]string
	eventually(t, 30*time.Second, "the core has all final records", func() error {
		out, status := as(ctx, t, g, "vera", command+" --ended")
		if status != 0 {
			return fmt.Errorf("status %d: %s", status, out)
		}
		if jobs = read(out); len(jobs) != 4 {
			return fmt.Errorf("%d jobs: %s", len(jobs), out)
		}
		return nil
	})
	if n := of(jobs["sends"], "sent_bytes"); n != datagrams*(bytes+28) {
		t.Errorf("%d bytes sent, want %d: %q", n, datagrams*(bytes+28), jobs["sends"])
	}
	if n := of(jobs["nothing"], "sent_bytes"); n != 0 {
		t.Errorf("%d bytes sent by nothing", n)
	}
	without := of(jobs["nothing"], "executions")
	for name, n := range map[string]int{"executes": programs, "killed": 2*programs + 1} {
		if got := of(jobs[name], "executions") - without; without == 0 || got != n {
			t.Errorf("%s: %d programs besides the %d of nothing, want %d", name, got, without, n)
		}
	}
	for name, row := range jobs {
		if row[columns["node"]] != "node2" || row[columns["user"]] != "vera" || row[columns["credential"]] == "" || row[columns["incomplete"]] != "false" {
			t.Errorf("%s: %q", name, row)
		}
	}

	// The same from a session, on the core, and on the machine; nobody else's.
	root := func(node, command string) map[string][]string {
		t.Helper()
		out, status, err := story.Run(ctx, g.Node(node), "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s on %s: %d %v\n%s", command, node, status, err, out)
		}
		return read(out)
	}
	out, status := as(ctx, t, g, "vera", "ssh vera@lab@node1 '"+command+"'")
	if status != 0 {
		t.Fatalf("in a session: %d\n%s", status, out)
	}
	for who, seen := range map[string]map[string][]string{"a session": read(out), "root on the core": root("core", command+" --vo lab --user vera"),
		"root on node2": root("node2", command+" --node --vo lab --user vera")} {
		for name, row := range jobs {
			if got := seen[name]; got != nil {
				got[columns["submitted"]] = row[columns["submitted"]] // a machine knows when it was asked itself
			}
			if !slices.Equal(seen[name], row) {
				t.Errorf("%s sees of %s\n%q, want\n%q", who, name, seen[name], row)
			}
		}
	}
	if seen := root("node1", command+" --node --user vera"); len(seen) != 0 {
		t.Errorf("node1 ran none of them, and has %q", seen)
	}
	want(ctx, t, g, "viktor", command+" --user vera", 77, "does not administer")
	want(ctx, t, g, "viktor", "xos usage --vo elsewhere", 77)
	want(ctx, t, g, "viktor", "ssh viktor@lab@node2 '"+command+" --user vera'", 77)
	if out, status := as(ctx, t, g, "viktor", command); status != 0 || strings.Contains(out, "vera") {
		t.Errorf("viktor sees %d\n%s", status, out)
	}
	if out, _, err := story.Run(ctx, g.Node("node2"), "root", "xos guard status"); err != nil || !strings.Contains(out, "accounting") {
		t.Errorf("%v\n%s", err, out)
	}
	// Her sessions on node1 are one stay there, which ends with the last process.
	const sessions = "xos usage --sessions --csv --vo lab --user vera"
	eventually(t, time.Minute, "the core has her stay on node1", func() error {
		out, status, err := story.Run(ctx, g.Node("core"), "root", sessions+" --ended")
		if err != nil || status != 0 {
			return fmt.Errorf("%d %v: %s", status, err, out)
		}
		rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil || len(rows) < 2 {
			return fmt.Errorf("%v: %s", err, out)
		}
		at := func(column string) string { return rows[len(rows)-1][slices.Index(rows[0], column)] }
		logins, _ := strconv.Atoi(at("logins"))
		programs, _ := strconv.Atoi(at("executions"))
		cpu, _ := strconv.ParseFloat(at("cpu_user_seconds"), 64)
		if at("node") != "node1" || at("credential") == "" || at("incomplete") != "false" || logins < 1 || programs < logins || cpu <= 0 {
			return fmt.Errorf("the stay: %s", out)
		}
		return nil
	})
}
