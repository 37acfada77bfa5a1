package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/wallet"
)

// usageReader speaks to who has the records: the core, as its administrator
// where its socket is or with the credential of the current account; else, and
// for node always, this machine's xos-node.
func usageReader(node bool) (xosv1connect.UsageClient, error) {
	if !node {
		if c, err := admin(); err == nil {
			return xosv1connect.NewUsageClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
		}
		if c, err := usageOfWallet(); err == nil || !xos.Is(err, xos.NotFound) {
			return c, err
		}
	}
	c, err := gate()
	if err != nil {
		return nil, xos.Errorf(xos.KindOf(err), "what was used is known to the core, and to the machines of the grid: %w", err).
			WithHint("xos login USER@VO, or log in to a machine of the grid")
	}
	return xosv1connect.NewUsageClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

// usageOfWallet is the core, asked with the current account's own credential;
// xos.NotFound if there is none.
func usageOfWallet() (xosv1connect.UsageClient, error) {
	w, err := wallet.Default()
	if err != nil {
		return nil, err
	}
	a, err := w.Current()
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "nobody is logged in here")
	}
	c, base, err := asAccount(w, a)
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewUsageClient(c, base, rpc.ClientOptions()...), nil
}

// usageForm is how the answer is shown.
type usageForm struct{ jobs, sessions, csv, ended bool }

// list: each record, not sums.
func (f usageForm) list() bool { return f.jobs || f.sessions }

// lists says whether a record is one of those to be listed.
func (f usageForm) lists(r *xosv1.UsageRecord) bool {
	return f.jobs && r.Job != "" || f.sessions && r.Stay != ""
}

func newUsageCommand() *cobra.Command {
	var req xosv1.ListUsageRequest
	var since, until string
	var form usageForm
	var node bool
	c := &cobra.Command{
		Use:   "usage",
		Short: "Show what jobs and sessions used: processors, memory, disks, network, programs, files",
		Long: `Add up what jobs and login sessions used, by VO and member, or list each job with
--jobs, each stay with --sessions. A stay is an account's sessions on one machine,
from its first login until none of their processes is left: sessions of one account
share what the kernel counts.

A user sees her own, on all machines; who has the role admin in a VO sees all
of that VO, with the credential of xos login; root on the core sees all VOs, and
root on a machine, with --node if the core is on it too, what that machine saw.
Nobody sees another VO's.

A job or stay counts in the period in which it ended; one that goes on, with what
it had used when that was counted last, which --ended leaves out. Bytes of the network
are those of IP packets, headers included. One of which not all is known, since its
machine stopped or does not count something, says so: see the column UNCOUNTED of the
lists, and incomplete.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if form.csv && jsonOutput(cmd) {
				return xos.Errorf(xos.Invalid, "--csv and --json exclude each other")
			}
			var err error
			now := time.Now()
			if req.Since, err = whenFlag("--since", since, now); err != nil {
				return err
			}
			if req.Before, err = whenFlag("--until", until, now); err != nil {
				return err
			}
			client, err := usageReader(node)
			if err != nil {
				return err
			}
			var sums usage.Sums
			if err := readUsage(cmd.Context(), client, &req, func(r *xosv1.UsageRecord) {
				if r.Final || !form.ended {
					sums.Add(r)
				}
			}); err != nil {
				return err
			}
			return showUsage(cmd, &sums, form)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vo, "vo", "", "only this VO's")
	f.StringVar(&req.User, "user", "", "only this user's")
	f.StringVar(&since, "since", "", "only what ended from then on: 90m, 2026-11-25 or 2026-11-25T14:00:00Z")
	f.StringVar(&until, "until", "", "only what ended before then")
	f.BoolVar(&form.jobs, "jobs", false, "list each job")
	f.BoolVar(&form.sessions, "sessions", false, "list each stay")
	f.BoolVar(&form.ended, "ended", false, "leave out what goes on")
	f.BoolVar(&form.csv, "csv", false, "print comma-separated values, in bytes and seconds, for a bill")
	f.BoolVar(&node, "node", false, "what this machine saw, as root")
	return c
}

// whenFlag reads a flag's time.
func whenFlag(name, text string, now time.Time) (*timestamppb.Timestamp, error) {
	at, err := sinceWhen(text, now)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "%s: %.80q is no time", name, text).WithHint("%s 90m, %s 2026-11-25 or %s 2026-11-25T14:00:00Z", name, name, name)
	}
	return at, nil
}

// readUsage reads all pages.
func readUsage(ctx context.Context, client xosv1connect.UsageClient, req *xosv1.ListUsageRequest, f func(*xosv1.UsageRecord)) error {
	for {
		resp, err := client.ListUsage(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		for _, r := range resp.Msg.Records {
			f(r)
		}
		if resp.Msg.After == "" || resp.Msg.After == req.After {
			return nil
		}
		req.After = resp.Msg.After
	}
}

func showUsage(cmd *cobra.Command, sums *usage.Sums, form usageForm) error {
	members, records := sums.ByMember(), []*xosv1.UsageRecord(nil)
	if form.list() {
		records = slices.DeleteFunc(sums.Records(), func(r *xosv1.UsageRecord) bool { return !form.lists(r) })
	}
	out := cmd.OutOrStdout()
	switch {
	case form.csv && form.list():
		return recordsCSV(out, records)
	case form.csv:
		return membersCSV(out, members)
	case form.list():
		return show(cmd, &xosv1.ListUsageResponse{Records: records}, func(w io.Writer) { printRecords(w, records) })
	}
	return show(cmd, members, func(w io.Writer) { printUsage(w, members) })
}

func printUsage(w io.Writer, members []usage.Sum) {
	table(w, "VO\tUSER\tJOBS\tTIME\tSTAYS\tLOGINS\tTIME\tCPU\tPEAK\tREAD\tWRITTEN\tRECEIVED\tSENT\tPROGRAMS\tFILES\tREFUSED", func(row func(...any)) {
		for _, m := range members {
			jobs := strconv.Itoa(m.Jobs)
			if m.Running > 0 {
				jobs += fmt.Sprintf(" (%d running)", m.Running)
			}
			stays := strconv.Itoa(m.Stays)
			if m.Here > 0 {
				stays += fmt.Sprintf(" (%d here)", m.Here)
			}
			if m.Incomplete > 0 {
				stays += fmt.Sprintf(" (%d of all incomplete)", m.Incomplete)
			}
			row(m.VO, m.User, jobs, m.Wall.Round(time.Second), stays, m.Logins, m.Stayed.Round(time.Second), cpuTime((m.CPUUser + m.CPUSystem).Microseconds()), size(m.MemoryPeak),
				size(m.ReadBytes), size(m.WrittenBytes), size(m.ReceivedBytes), size(m.SentBytes), m.Executions, m.Opens, m.Refusals)
		}
	})
}

func printRecords(w io.Writer, records []*xosv1.UsageRecord) {
	table(w, "ID\tACCOUNT\tNODE\tCOMMAND\tSTARTED\tUNTIL\tCPU\tPEAK\tREAD\tWRITTEN\tRECEIVED\tSENT\tPROGRAMS\tFILES\tREFUSED\tUNCOUNTED", func(row func(...any)) {
		for _, r := range records {
			until := when(r.Until)
			switch {
			case r.Incomplete:
				until += " (incomplete)"
			case !r.Final:
				until += " (running)"
			}
			what := orDash(plain(r.Executable))
			if r.Stay != "" {
				what = fmt.Sprintf("%d logins", r.Logins)
			}
			row(usage.ID(r), r.Account, r.Node, what, when(r.Started), until, cpuTime(r.CpuUserMicros+r.CpuSystemMicros),
				size(r.MemoryPeakBytes), size(r.ReadBytes), size(r.WrittenBytes), size(r.ReceivedBytes), size(r.SentBytes),
				r.Executions, r.Opens, r.Refusals, orDash(strings.Join(r.Uncounted, ",")))
		}
	})
}

func membersCSV(out io.Writer, members []usage.Sum) error {
	w := csv.NewWriter(out)
	w.Write([]string{"vo", "user", "jobs", "running", "incomplete", "wall_seconds", "cpu_user_seconds", "cpu_system_seconds", "memory_peak_bytes",
		"read_bytes", "written_bytes", "received_bytes", "sent_bytes", "executions", "opens", "refusals", "stays", "here", "logins", "stayed_seconds"})
	for _, m := range members {
		w.Write(cells(string(m.VO), string(m.User), m.Jobs, m.Running, m.Incomplete, m.Wall, m.CPUUser, m.CPUSystem, m.MemoryPeak,
			m.ReadBytes, m.WrittenBytes, m.ReceivedBytes, m.SentBytes, m.Executions, m.Opens, m.Refusals, m.Stays, m.Here, m.Logins, m.Stayed))
	}
	w.Flush()
	return w.Error()
}

func recordsCSV(out io.Writer, records []*xosv1.UsageRecord) error {
	w := csv.NewWriter(out)
	w.Write([]string{"job", "vo", "user", "credential", "node", "name", "executable", "submitted", "started", "until", "final", "incomplete",
		"wall_seconds", "cpu_user_seconds", "cpu_system_seconds", "memory_peak_bytes", "read_bytes", "written_bytes", "received_bytes", "sent_bytes",
		"executions", "opens", "refusals", "uncounted", "stay", "logins"})
	for _, r := range records {
		a, err := xos.ParseAccount(r.Account)
		if err != nil {
			return err
		}
		micros := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
		w.Write(cells(r.Job, string(a.VO), string(a.User), r.Credential, r.Node, r.Name, r.Executable, r.Submitted, r.Started, r.Until, r.Final, r.Incomplete,
			usage.Wall(r), micros(r.CpuUserMicros), micros(r.CpuSystemMicros), r.MemoryPeakBytes, r.ReadBytes, r.WrittenBytes, r.ReceivedBytes, r.SentBytes,
			r.Executions, r.Opens, r.Refusals, strings.Join(r.Uncounted, " "), r.Stay, r.Logins))
	}
	w.Flush()
	return w.Error()
}

// cells are values as a spreadsheet wants them. What a job's user chose must not
// be a formula there, nor move a terminal's cursor.
func cells(values ...any) []string {
	list := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case time.Duration:
			list[i] = strconv.FormatFloat(v.Seconds(), 'f', -1, 64)
		case *timestamppb.Timestamp:
			if v != nil {
				list[i] = v.AsTime().UTC().Format(time.RFC3339Nano)
			}
		case string:
			if v != "" {
				list[i] = plain(v)
			}
			if strings.ContainsAny(list[i][:min(1, len(list[i]))], "=+-@") {
				list[i] = "'" + list[i]
			}
		default:
			list[i] = fmt.Sprint(v)
		}
	}
	return list
}
