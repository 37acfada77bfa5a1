package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

func newVOIsolationCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "isolation",
		Short: "What a VO shares with others on machines, and forbids to its own",
		Long: `A machine keeps VOs apart in everything, unless three agree to share something:
each of the two VOs names the other in its policy, and the machine's site permits
it. A policy is TOML:

  forbid = ["setuid", "user_namespaces"]
  devices = ["gpu"]
  [share]
  network = ["chemistry", "biology"]
  sockets = ["*"]
  [ceilings]
  memory = "16G"

share has aims: signals, debug, scheduling, files, exec, sockets, ipc, keys and
network, each with the VOs that it is shared with; "*" is any that shares it too.
forbid is what the VO's own processes may not do: perf (measuring by
perf_event_open), user_namespaces, setuid (executing set-user-ID and set-group-ID
programs), own_programs (executing files that are not root's). devices are classes
of devices that the VO uses where a site has them. ceilings (cpus, memory, processes,
io) lower what the VO's jobs may use of a machine together, in amounts or parts
("75%") as in node.toml. Sharing but for the network, and forbid, are of machines at
level A.`,
	}
	c.AddCommand(newVOIsolationShowCommand(), newVOIsolationSetCommand(), newVOIsolationCheckCommand())
	return c
}

// policyText reads a file, or standard input for "-".
func policyText(cmd *cobra.Command, path string) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, xos.Errorf(xos.Invalid, "reading the policy: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, isolation.MaxText+1))
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the policy: %w", err)
	}
	return text, nil
}

func newVOIsolationSetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set VO FILE",
		Short: "Set a VO's policy of isolation; - reads standard input, and an empty one shares nothing",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := policyText(cmd, args[1])
			if err != nil {
				return err
			}
			req := &xosv1.SetIsolationRequest{Vo: args[0], Isolation: string(text)}
			return ask(cmd, vos, xosv1connect.VOsClient.SetIsolation, req, func(w io.Writer, _ *xosv1.SetIsolationResponse) {
				fmt.Fprintf(w, "set the policy of isolation of %s\n", args[0])
			})
		},
	}
}

func newVOIsolationShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show VO",
		Short: "Show a VO's policy of isolation",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := vos()
			if err != nil {
				return err
			}
			resp, err := client.ListVOs(cmd.Context(), connect.NewRequest(&xosv1.ListVOsRequest{}))
			if err != nil {
				return err
			}
			for _, vo := range resp.Msg.Vos {
				if vo.Name != args[0] {
					continue
				}
				return show(cmd, map[string]string{"vo": vo.Name, "isolation": vo.Isolation}, func(w io.Writer) {
					if vo.Isolation == "" {
						fmt.Fprintf(w, "%s has set none: it shares nothing, but for what a machine's site says in its place\n", vo.Name)
						return
					}
					fmt.Fprintln(w, plainLines(vo.Isolation))
				})
			}
			return xos.Errorf(xos.NotFound, "there is no VO %.80q", args[0]).WithHint("see: xos vo list")
		},
	}
}

func newVOIsolationCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a policy of isolation is good, and what it says; - reads standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := policyText(cmd, args[0])
			if err != nil {
				return err
			}
			p, err := isolation.Parse(text)
			if err != nil {
				return err
			}
			return show(cmd, p, func(w io.Writer) { printPolicy(w, p) })
		},
	}
}

// plainLines shows a text of several lines.
func plainLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if line = strings.TrimRight(line, "\r"); line != "" {
			line = plain(strings.ReplaceAll(line, "\t", "    "))
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// joined lists names.
func joined[S ~string](names []S) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}

func printPolicy(w io.Writer, p isolation.Policy) {
	none := true
	for _, aim := range isolation.Aims {
		if names := p.Share[aim]; len(names) > 0 {
			fmt.Fprintf(w, "shares %s with %s, where they and the site do so too\n", aim, joined(names))
			none = false
		}
	}
	if none {
		fmt.Fprintln(w, "shares nothing")
	}
	if len(p.Forbid) > 0 {
		fmt.Fprintf(w, "forbids its own processes: %s\n", joined(p.Forbid))
	}
	if len(p.Devices) > 0 {
		fmt.Fprintf(w, "uses devices of the classes %s, where a site has them\n", joined(p.Devices))
	}
	for _, c := range []struct{ what, most string }{{"processors", p.Ceilings.CPUs}, {"memory", p.Ceilings.Memory},
		{"processes", p.Ceilings.Processes}, {"bytes a second of each disk", p.Ceilings.IO}} {
		if c.most != "" {
			fmt.Fprintf(w, "bounds its jobs on a machine to %s %s, if the site does not bound them to less\n", c.most, c.what)
		}
	}
}
