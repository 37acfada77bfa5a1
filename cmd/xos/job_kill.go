package main

import (
	"fmt"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func newKillCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kill [-SIGNAL | -s SIGNAL] JOB...",
		Short: "Send a signal to jobs, wherever they run (xkill)",
		Long: `Send a signal, TERM if none is given, to the first process of each job. STOP and
CONT suspend and resume the whole job. KILL ends all of it; it is written down
first, so that it happens even to a job whose machine cannot be reached now.`,
		Example:            "  xkill core-7f3a09c2\n  xkill -STOP core-7f3a09c2\n  xkill -9 core-7f3a09c2",
		DisableFlagParsing: true, // -STOP is no flag
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			sig, ids, err := parseKill(args)
			if err != nil {
				return err
			}
			client, err := jobs()
			if err != nil {
				return err
			}
			var failed error
			for _, id := range ids {
				if _, err := client.Signal(cmd.Context(), connect.NewRequest(&xosv1.SignalRequest{Job: id, Signal: int32(sig)})); err != nil {
					if failed != nil {
						fmt.Fprintln(cmd.ErrOrStderr(), message(failed))
					}
					failed = err
				}
			}
			return failed
		},
	}
}

// parseKill reads arguments as kill(1) does.
func parseKill(args []string) (sig int, ids []string, err error) {
	sig = int(unix.SIGTERM)
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			ids = append(ids, args[i+1:]...)
			i = len(args)
		case a == "--json":
		case a == "-s" || a == "--signal":
			if i++; i == len(args) {
				return 0, nil, xos.Errorf(xos.Invalid, "%s needs a signal", a)
			}
			if sig, err = parseSignal(args[i]); err != nil {
				return 0, nil, err
			}
		case len(a) > 1 && a[0] == '-':
			if sig, err = parseSignal(a[1:]); err != nil {
				return 0, nil, err
			}
		default:
			ids = append(ids, a)
		}
	}
	if len(ids) == 0 {
		return 0, nil, xos.Errorf(xos.Invalid, "no job is given").WithHint("xps lists them")
	}
	return sig, ids, nil
}

// parseSignal reads "9", "KILL" or "SIGKILL".
func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 64 {
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	return 0, xos.Errorf(xos.Invalid, "there is no signal %.20q", s).WithHint("kill -l lists them")
}

func signalName(n int) string {
	if s := unix.SignalName(unix.Signal(n)); s != "" {
		return strings.TrimPrefix(s, "SIG")
	}
	return strconv.Itoa(n)
}
