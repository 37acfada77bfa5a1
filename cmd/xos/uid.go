package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func uids() (xosv1connect.UIDsClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewUIDsClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newUIDCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "uid",
		Short: "Local uids of grid accounts on this machine",
		Long: `A grid account has a uid on this machine from its first login or job. When its
access ends, or it was not used for long, the uid is quarantined: after some time
a sweep searches the machine for everything that could still be the account's.
Only when nothing is left is the uid free for others. An account that comes back
before has its uid back. See quarantine and idle in node.toml(5). Root only.`,
	}
	c.AddCommand(newUIDListCommand(), newUIDShowCommand(), newUIDSweepCommand())
	return c
}

func newUIDListCommand() *cobra.Command {
	var req xosv1.ListUIDsRequest
	c := &cobra.Command{
		Use:   "list",
		Short: "List the uids given to grid accounts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, uids, xosv1connect.UIDsClient.ListUIDs, &req, func(w io.Writer, a *xosv1.ListUIDsResponse) {
				printUIDs(w, a)
			})
		},
	}
	c.Flags().StringVar(&req.State, "state", "", "only those active, closing, quarantined or free")
	return c
}

func newUIDShowCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "show USER@VO | UID",
		Short: "Show what the last sweep found of a uid, and what to do about it",
		Long: `Show an account's uid, with the range of subordinate ids that its containers have,
and what the last sweep found of either. A number may be one of that range, as ps
shows it of a process in a container. The range is "not served" where newuidmap is not
told of it: the account is not in use, or the pool in node.toml is another by now.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, uids, xosv1connect.UIDsClient.ShowUID, &xosv1.ShowUIDRequest{Subject: args[0]}, func(w io.Writer, a *xosv1.ShowUIDResponse) {
				printUID(w, a)
			})
		},
	}, nodeAccounts)
}

func printUIDs(w io.Writer, a *xosv1.ListUIDsResponse) {
	table(w, "UID\tACCOUNT\tSTATE\tSINCE\tUSED\tFREE FROM\tFOUND\tSUBIDS", func(row func(...any)) {
		for _, u := range a.Uids {
			row(u.Uid, u.Account, u.State, when(u.Since), when(u.Seen), when(u.Due), u.Found, subids(u))
		}
	})
	printSweep(w, a.Sweep)
}

func printUID(w io.Writer, a *xosv1.ShowUIDResponse) {
	u := a.Uid
	fmt.Fprintf(w, "uid:       %d\naccount:   %s\nstate:     %s since %s\nused:      %s\nfree from: %s\nsubids:    %s\n",
		u.Uid, u.Account, u.State, when(u.Since), when(u.Seen), when(u.Due), subids(u))
	if u.Proof != "" {
		fmt.Fprintf(w, "proof:     %s in the audit log\n", u.Proof)
	}
	for _, f := range a.Findings {
		fmt.Fprintf(w, "left: %s %s (%s)\n  %s\n", f.Kind, plain(f.Where), plain(f.Why), f.Advice)
	}
	if more := u.Found - int64(len(a.Findings)); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	printSweep(w, a.Sweep)
	for _, l := range a.Sweep.GetLooked() {
		fmt.Fprintf(w, "  %s\n", l)
	}
	for _, l := range a.Sweep.GetSkipped() {
		fmt.Fprintf(w, "  not looked at: %s\n", plain(l))
	}
}

// subids gives the range of an account's containers, "2013265920-2013331455".
func subids(u *xosv1.UID) string {
	switch {
	case u.SubidCount == 0:
		return "-"
	case !u.SubidsServed:
		return fmt.Sprintf("%d-%d, not served", u.SubidFirst, uint64(u.SubidFirst)+uint64(u.SubidCount)-1)
	}
	return fmt.Sprintf("%d-%d", u.SubidFirst, uint64(u.SubidFirst)+uint64(u.SubidCount)-1)
}

// sweepPoll is how often a sweep under way is asked after.
const sweepPoll = time.Second

func newUIDSweepCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sweep",
		Short: "Search this machine for what is left of quarantined uids, and free those of which nothing is",
		Long: `Take uids out of use whose account may not be here any more, or was idle for too
long. Then search processes, IPC, keyrings, crontabs and all local files for what is left of
the uids in quarantine, and wait for the outcome. It runs at low priority and may
take long; if this command is ended it goes on: xos uid list tells. Uids whose
quarantine is not over are searched for, but stay. The exit status is 0 if
nothing was found and 1 if something is left or could not be looked at.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := uids()
			if err != nil {
				return err
			}
			started, err := client.SweepUIDs(cmd.Context(), connect.NewRequest(&xosv1.SweepUIDsRequest{}))
			if err != nil {
				return err
			}
			a, err := awaitSweep(cmd.Context(), client, started.Msg.Sweep.Id)
			if err != nil {
				return err
			}
			left := len(a.Sweep.Blind) > 0 || a.Sweep.Failed != ""
			for _, u := range a.Uids {
				left = left || u.Found > 0
			}
			err = show(cmd, a, func(w io.Writer) {
				for _, u := range a.Uids {
					if u.Found > 0 {
						fmt.Fprintf(w, "%d %s: %d left; xos uid show %d\n", u.Uid, u.Account, u.Found, u.Uid)
					}
				}
				printSweep(w, a.Sweep)
			})
			if err == nil && left {
				return exitError(1)
			}
			return err
		},
	}
}

func awaitSweep(ctx context.Context, client xosv1connect.UIDsClient, id string) (*xosv1.ListUIDsResponse, error) {
	for {
		resp, err := client.ListUIDs(ctx, connect.NewRequest(&xosv1.ListUIDsRequest{State: "quarantined"}))
		if err != nil || resp.Msg.Sweep.Id != id || resp.Msg.Sweep.Ended != nil {
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(sweepPoll):
		}
	}
}

func printSweep(w io.Writer, s *xosv1.Sweep) {
	switch {
	case s.GetId() == "":
		return
	case s.Ended == nil:
		fmt.Fprintf(w, "%s: under way since %s, %d files so far\n", s.Id, when(s.Began), s.Files)
	case s.Failed != "":
		fmt.Fprintf(w, "%s: failed: %s\n", s.Id, plain(s.Failed))
	default:
		fmt.Fprintf(w, "%s: %s to %s, %d uids, %d files, %d freed\n", s.Id, when(s.Began), when(s.Ended), s.Uids, s.Files, s.Freed)
	}
	if len(s.Blind) > 0 {
		fmt.Fprintf(w, "nothing is freed, since this could not be looked at:\n  %s\n", plain(strings.Join(s.Blind, "; ")))
	}
}
