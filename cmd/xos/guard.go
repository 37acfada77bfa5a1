package main

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func guards() (xosv1connect.GuardClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewGuardClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newGuardCommand() *cobra.Command {
	c := &cobra.Command{Use: "guard", Short: "How this machine keeps VOs apart"}
	c.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "Show the level of isolation, what it consists of and, to root, what was refused",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, guards, xosv1connect.GuardClient.GuardStatus, &xosv1.GuardStatusRequest{}, func(w io.Writer, a *xosv1.GuardStatusResponse) {
				fmt.Fprintf(w, "level %s\n\n", a.Level)
				printMeasures(w, a.Measures, "yes", "no")
				if len(a.Counts) > 0 {
					fmt.Fprintln(w)
					table(w, "DECIDED\tCOUNT", func(row func(...any)) {
						for _, n := range a.Counts {
							row(n.What, n.Count)
						}
					})
				}
			})
		},
	}, &cobra.Command{
		Use:   "test",
		Short: "Fire each measure now; the exit status is 1 if one did not hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := guards()
			if err != nil {
				return err
			}
			resp, err := client.GuardTest(cmd.Context(), connect.NewRequest(&xosv1.GuardTestRequest{}))
			if err != nil {
				return err
			}
			err = show(cmd, resp.Msg, func(w io.Writer) { printMeasures(w, resp.Msg.Results, "holds", "FAILS") })
			if err == nil && !resp.Msg.Passed {
				return exitError(1)
			}
			return err
		},
	})
	return c
}

func printMeasures(w io.Writer, list []*xosv1.Measure, yes, no string) {
	table(w, "MEASURE\tSTATE\tAGAINST\tWHY", func(row func(...any)) {
		for _, m := range list {
			state := no
			if m.Have {
				state = yes
			}
			row(m.Name, state, orDash(m.Against), orDash(plain(m.Why)))
		}
	})
}
