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

func revocations() (xosv1connect.RevocationsClient, error) {
	c, err := admin()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewRevocationsClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

// span gives seconds as people write a time; "" for none.
func span(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return (time.Duration(seconds) * time.Second).String()
}

func removalOf(vo *xosv1.VO) string {
	if vo.Removal == "" {
		return "end"
	}
	return vo.Removal + " " + span(vo.RemovalSeconds)
}

func newVORemovalCommand() *cobra.Command {
	var long time.Duration
	c := complete(&cobra.Command{
		Use:   "set-removal VO end|freeze|finish",
		Short: "Say what becomes of what removed members of a VO have running",
		Long: `When a member is removed, no machine lets her in any more. What she has running is
  end     killed at once, sessions and jobs (the default)
  freeze  stopped; it goes on if she is added again in time with all groups and
          roles that she had, and is killed else
  finish  left to its end, and killed when the time is over; nothing new begins

Her files can be used by what is frozen or finishing until then. A ban, a revoked
certificate, a deleted user and lost groups or roles always end what runs.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &xosv1.SetRemovalRequest{Vo: args[0], Fate: args[1], Seconds: int64(long.Seconds())}
			return ask(cmd, revocations, xosv1connect.RevocationsClient.SetRemoval, req, func(w io.Writer, a *xosv1.SetRemovalResponse) {
				if a.Seconds == 0 {
					fmt.Fprintf(w, "what removed members of %s run is ended\n", args[0])
					return
				}
				verb := map[string]string{"freeze": "is frozen for", "finish": "may finish for"}[args[1]]
				fmt.Fprintf(w, "what removed members of %s run %s %s, then ended\n", args[0], verb, span(a.Seconds))
			})
		},
	}, aVO, fixed("end", "freeze", "finish"))
	c.Flags().DurationVar(&long, "for", 0, "for how long; at most 12h (default 1h)")
	return c
}

func newVOOfflineCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "set-offline VO TIME",
		Short: "Say how long machines may serve a VO without news from the core",
		Long: `A machine that cannot reach the core lets members in by the last news for so long,
then refuses them. 0s is as long as offline in core.toml says, which bounds it in
any case, as offline in a machine's node.toml does.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			long, err := time.ParseDuration(args[1])
			if err != nil {
				return err
			}
			req := &xosv1.SetOfflineRequest{Vo: args[0], Seconds: int64(long.Seconds())}
			return ask(cmd, revocations, xosv1connect.RevocationsClient.SetOffline, req, func(w io.Writer, _ *xosv1.SetOfflineResponse) {
				if req.Seconds == 0 {
					fmt.Fprintf(w, "machines serve %s without news for as long as the core's configuration says\n", args[0])
					return
				}
				fmt.Fprintf(w, "machines serve %s without news for %s at most\n", args[0], span(req.Seconds))
			})
		},
	}, aVO)
}
