package main

import (
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func newWaitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait JOB...",
		Short: "Wait until jobs have ended (xwait)",
		Long:  "Wait until all of the jobs have ended. The exit status is that of the last one.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := jobs()
			if err != nil {
				return err
			}
			var ended []*xosv1.Job
			for _, id := range args {
				for {
					resp, err := client.Wait(cmd.Context(), connect.NewRequest(&xosv1.GetRequest{Job: id}))
					if interrupted(err) && cmd.Context().Err() == nil {
						time.Sleep(200 * time.Millisecond) // the service restarts
						continue
					}
					if err != nil {
						return err
					}
					ended = append(ended, resp.Msg)
					break
				}
			}
			if jsonOutput(cmd) {
				if err := show(cmd, &xosv1.ListResponse{Jobs: ended}, func(io.Writer) {}); err != nil {
					return err
				}
			}
			for _, j := range ended {
				if j.State == xosv1.JobState_JOB_STATE_FAILED {
					fmt.Fprintf(cmd.ErrOrStderr(), "xos: job %s: %s\n", j.Id, j.Reason)
				}
			}
			if status := jobStatus(ended[len(ended)-1]); status != 0 {
				return exitError(status)
			}
			return nil
		},
	}
}

// interrupted reports whether an answer was lost with a restart of the service:
// the same question may be asked again.
func interrupted(err error) bool {
	return xos.Is(err, xos.Conflict) || xos.Is(err, xos.Unavailable) && !connect.IsWireError(err)
}
