package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
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
	c.AddCommand(complete(&cobra.Command{
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
				for _, p := range a.Policies {
					fmt.Fprintln(w)
					printGuardPolicy(w, p)
				}
				if len(a.Vos) > 0 {
					fmt.Fprintln(w)
					table(w, "VO\tREFUSED\tLOST\tBY AIM", func(row func(...any)) {
						for _, vo := range a.Vos {
							row(orDash(vo.Vo), vo.Refused, vo.Lost, orDash(byAim(vo.ByAim)))
						}
					})
				}
			})
		},
	}), complete(&cobra.Command{
		Use:   "explain [PID]",
		Short: "Say what the kernel's checks are for, and whose a process is to the guard",
		Long: `List the checks of the kernel that keep VOs apart, each with what asks it and, to
root, how often it refused. Of the process with the number, or else of the one
that runs this, say which VO's it is, by what, and what it reaches. Who is not root
may ask about processes of the same user.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pid := int64(os.Getppid())
			if len(args) == 1 {
				var err error
				if pid, err = strconv.ParseInt(args[0], 10, 32); err != nil || pid <= 0 {
					return xos.Errorf(xos.Invalid, "%.40q is no process's number", args[0])
				}
			}
			return ask(cmd, guards, xosv1connect.GuardClient.GuardExplain, &xosv1.GuardExplainRequest{Pid: int32(pid)}, printGuardExplanation)
		},
	}), complete(&cobra.Command{
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
	}))
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

// byAim lists counts, "files 3, signals 1".
func byAim(counts map[string]uint64) string {
	var parts []string
	for _, aim := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprint(aim, " ", counts[aim]))
	}
	return strings.Join(parts, ", ")
}

// printGuardPolicy says what a VO's policy comes to here, and who decided it.
func printGuardPolicy(w io.Writer, p *xosv1.GuardPolicy) {
	fmt.Fprintf(w, "policy of VO %s, set by %s\n", plain(p.Vo), plain(p.SetBy))
	if p.Why != "" {
		fmt.Fprintf(w, "  it shares nothing and may do least: %s\n", plain(p.Why))
	}
	if len(p.Forbidden) > 0 {
		fmt.Fprintf(w, "  its processes may not: %s\n", joined(p.Forbidden))
	}
	if len(p.Devices) > 0 {
		fmt.Fprintf(w, "  its devices: %s\n", joined(p.Devices))
	}
	for _, s := range p.Sharing {
		state := "isolated"
		if s.Shared {
			state = "shared"
		}
		fmt.Fprintf(w, "  %s with %s: %s: %s\n", plain(s.Aim), plain(s.With), state, plain(s.Why))
	}
}

func printGuardExplanation(w io.Writer, a *xosv1.GuardExplainResponse) {
	if p := a.Process; p != nil {
		vo := "the system's"
		if p.Vo != "" {
			vo = "VO " + p.Vo + "'s"
		}
		fmt.Fprintf(w, "process %d, uid %d: %s, by its %s\n", p.Pid, p.Uid, plain(vo), plain(p.By))
		if p.Account != "" {
			fmt.Fprintf(w, "  it is %s's\n", plain(p.Account))
		}
		if p.Job != "" {
			fmt.Fprintf(w, "  it is of job %s\n", plain(p.Job))
		}
		for _, line := range p.Says {
			fmt.Fprintf(w, "  %s\n", plain(line))
		}
		fmt.Fprintln(w)
	}
	if a.Policy != nil {
		printGuardPolicy(w, a.Policy)
		fmt.Fprintln(w)
	}
	if len(a.Hooks) == 0 {
		fmt.Fprintf(w, "level %s: this kernel has no programs at its own checks; see xos guard status\n", a.Level)
		return
	}
	table(w, "AIM\tCHECK\tSTATE\tREFUSED\tASKED BY", func(row func(...any)) {
		for _, h := range a.Hooks {
			state := "in force"
			if !h.Attached {
				state = "missing: " + plain(h.Why)
			}
			row(h.Aim, h.Name, state, h.Refused, h.Judges)
		}
	})
}
