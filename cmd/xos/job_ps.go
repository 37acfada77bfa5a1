package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
)

func newPsCommand() *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:   "ps",
		Short: "List your jobs, wherever in the grid they run (xps)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, jobs, xosv1connect.JobsClient.List, &xosv1.ListRequest{All: all}, func(w io.Writer, a *xosv1.ListResponse) {
				table(w, "JOB\tNAME\tSTATE\tNODE\tFROM\tCPU\tMEMORY\tSUBMITTED\tEXIT", func(row func(...any)) {
					for _, j := range a.Jobs {
						row(j.Id, orDash(j.Spec.GetName()), stateWord(j.State), orDash(j.ExecutionNode), j.SubmitNode,
							cpuTime(j.CpuMicros), size(j.MemoryBytes), when(j.Submitted), outcome(j))
					}
				})
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "show those that ended within the last day too")
	return c
}

// cpuTime shows it as ps does: minutes, seconds, hundredths.
func cpuTime(micros int64) string {
	return fmt.Sprintf("%d:%02d.%02d", micros/60e6, micros/1e6%60, micros/1e4%100)
}
