package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

// jobCommands are the commands for jobs.
func jobCommands() []*cobra.Command {
	return []*cobra.Command{newSubCommand(), newPsCommand(), newKillCommand(), newWaitCommand(), newJobCommand()}
}

// jobs speaks to this machine's job manager.
func jobs() (xosv1connect.JobsClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewJobsClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

// stateWord is how a state is shown: "running".
func stateWord(s xosv1.JobState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "JOB_STATE_"))
}

// jobStatus is the exit status that stands for how a job ended, as a shell
// gives it; a job that was lost has none of its own.
func jobStatus(job *xosv1.Job) int {
	switch {
	case job.State == xosv1.JobState_JOB_STATE_FAILED:
		return xos.Unavailable.ExitStatus()
	case job.ExitSignal != 0:
		return 128 + int(job.ExitSignal)
	}
	return int(job.ExitCode)
}

// outcome says how a job ended; "-" while it has not.
func outcome(job *xosv1.Job) string {
	switch {
	case job.Ended == nil:
		return "-"
	case job.State == xosv1.JobState_JOB_STATE_FAILED:
		return "lost"
	case job.ExitSignal != 0:
		return "SIG" + signalName(int(job.ExitSignal))
	}
	return fmt.Sprint(job.ExitCode)
}

func newJobCommand() *cobra.Command {
	c := &cobra.Command{Use: "job", Short: "Look at one job"}
	c.AddCommand(&cobra.Command{
		Use:   "show JOB",
		Short: "Show all that is known of a job",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, jobs, xosv1connect.JobsClient.Get, &xosv1.GetRequest{Job: args[0]}, printJob)
		},
	})
	return c
}

func printJob(w io.Writer, j *xosv1.Job) {
	line := func(name, value string) { fmt.Fprintf(w, "%-11s %s\n", name+":", orDash(value)) }
	line("job", j.Id)
	line("name", j.Spec.GetName())
	line("account", j.Account)
	line("command", strings.Join(j.Spec.GetArgv(), " "))
	line("state", stateWord(j.State))
	line("reason", j.Reason)
	line("exit", outcome(j))
	line("submitted", when(j.Submitted)+" on "+j.SubmitNode)
	line("started", when(j.Started)+" on "+orDash(j.ExecutionNode))
	line("ended", when(j.Ended))
	line("cpu time", cpuTime(j.CpuMicros))
	line("memory", size(j.MemoryBytes))
	if j.KillWanted && j.Ended == nil {
		line("kill", "wanted, not yet carried out")
	}
}
