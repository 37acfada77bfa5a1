package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func sessions() (xosv1connect.SessionClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewSessionClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newSessionCommand() *cobra.Command {
	c := &cobra.Command{Use: "session", Short: "Login sessions on this machine"}
	c.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List your sessions; as root, everybody's",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, sessions, xosv1connect.SessionClient.ListSessions, &xosv1.ListSessionsRequest{}, func(w io.Writer, a *xosv1.ListSessionsResponse) {
				table(w, "SESSION\tACCOUNT\tUID\tPID\tFROM\tOPENED", func(row func(...any)) {
					for _, s := range a.Sessions {
						row(s.Id, s.Account, s.Uid, s.Pid, orDash(s.From), when(s.Opened))
					}
				})
			})
		},
	})
	return c
}

func newStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the state of this machine in the grid",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, sessions, xosv1connect.SessionClient.NodeStatus, &xosv1.NodeStatusRequest{}, func(w io.Writer, a *xosv1.NodeStatusResponse) {
				reach := "unreachable: nobody is let in any more"
				switch {
				case a.CoreReachable:
					reach = "reachable"
				case a.ServesUntil != nil:
					reach = "unreachable: valid certificates are accepted until " + when(a.ServesUntil)
				}
				fmt.Fprintf(w, "node:      %s\ncore:      %s\nnews:      %s (epoch %d)\nsessions:  %d\njobs:      %d\nisolation: level %s\n",
					a.Node, reach, when(a.BundleIssued), a.BundleEpoch, a.Sessions, a.Jobs, a.Level)
				if a.Frozen > 0 {
					fmt.Fprintf(w, "frozen:    %d accounts\n", a.Frozen)
				}
				if len(a.Stale) > 0 {
					fmt.Fprintf(w, "refused:   VO %s: too long without news from the core\n", strings.Join(a.Stale, ", "))
				}
				for _, f := range a.Features {
					fmt.Fprintf(w, "  %s\n", f)
				}
			})
		},
	}
}
