package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func machines() (xosv1connect.MachinesClient, error) {
	c, err := admin()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewMachinesClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newNodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Machines of the grid"}
	c.AddCommand(newNodeTokenCommand(), newNodeListCommand(), newNodeRemoveCommand())
	return c
}

func newNodeTokenCommand() *cobra.Command {
	var valid time.Duration
	var uses int64
	c := &cobra.Command{
		Use:   "token",
		Short: "Make a join token for xos up --join",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &xosv1.CreateJoinTokenRequest{Seconds: int64(valid.Seconds()), Uses: uses}
			return ask(cmd, machines, xosv1connect.MachinesClient.CreateJoinToken, req, func(w io.Writer, a *xosv1.CreateJoinTokenResponse) {
				fmt.Fprintln(w, a.Token)
			})
		},
	}
	c.Flags().DurationVar(&valid, "valid", time.Hour, "how long it may be used")
	c.Flags().Int64Var(&uses, "uses", 2, "how often: a machine with storage needs two")
	return c
}

func newNodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the machines of the grid",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, machines, xosv1connect.MachinesClient.ListMachines, &xosv1.ListMachinesRequest{}, func(w io.Writer, a *xosv1.ListMachinesResponse) {
				table(w, "NODE\tSERVICE\tADDRESS\tJOINED\tCERTIFIED UNTIL", func(row func(...any)) {
					for _, m := range a.Machines {
						row(m.Name, m.Service, orDash(m.Address), when(m.Joined), when(m.NotAfter))
					}
				})
			})
		},
	}
}

func newNodeRemoveCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "remove NODE",
		Short: "Exclude a machine from the grid: its certificates are refused",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &xosv1.RemoveMachineRequest{Name: args[0], Reason: reason}
			return ask(cmd, machines, xosv1connect.MachinesClient.RemoveMachine, req, func(w io.Writer, a *xosv1.RemoveMachineResponse) {
				fmt.Fprintf(w, "removed %s\n", args[0])
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}
