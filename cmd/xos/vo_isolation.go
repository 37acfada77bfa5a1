package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/vom/wallet"
)

func newVOIsolationCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "isolation",
		Short: "What a VO shares with others on machines, and forbids to its own",
		Long: `A machine keeps VOs apart in everything, unless three agree to share something:
each of the two VOs names the other in its policy, and the machine's site permits
it. Who has the role admin in a VO sets its policy, from anywhere; its members may see
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
programs), own_programs (executing files that are not root's), socket_lists (listing
the machine's sockets, as ss does: to all VOs where the site does not permit it).
devices are classes of devices that the VO uses where a site has them. ceilings (cpus, memory, processes,
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

// policies speaks to the core about a VO's policy: as its administrator where
// its socket is, else with the caller's credential in the VO.
func policies(vo string) (xosv1connect.VOsClient, error) {
	if c, err := admin(); err == nil {
		return xosv1connect.NewVOsClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
	}
	w, err := wallet.Default()
	if err != nil {
		return nil, err
	}
	a, err := w.Current()
	if err != nil || string(a.VO) != vo {
		// The account that is used now may be another VO's.
		accounts := w.Accounts()
		i := slices.IndexFunc(accounts, func(a xos.Account) bool { return string(a.VO) == vo })
		if i < 0 {
			return nil, xos.Errorf(xos.NotFound, "you are neither root on the core nor logged in to %.80q", vo).WithHint("xos login USER@%.80s", vo)
		}
		a = accounts[i]
	}
	c, base, err := asAccount(w, a)
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewVOsClient(c, base, rpc.ClientOptions()...), nil
}

func newVOIsolationSetCommand() *cobra.Command {
	var version string
	c := complete(&cobra.Command{
		Use:   "set VO FILE",
		Short: "Set a VO's policy of isolation; - reads standard input, and an empty one shares nothing",
		Long: `Set a VO's policy of isolation, as who has the role admin in it, or as root on the
core. Machines have it within seconds. One with a mistake is refused with its line,
and the old one stays. With --if-version it replaces only the text that you saw:

  xos vo isolation show physics >policy.toml      # tells the version on standard error
  xos vo isolation set physics policy.toml --if-version 0123456789abcdef`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("if-version") && version == "" {
				return xos.Errorf(xos.Invalid, "--if-version is empty").WithHint("take it from: xos vo isolation show %.80s", args[0])
			}
			text, err := policyText(cmd, args[1])
			if err != nil {
				return err
			}
			req := &xosv1.SetIsolationRequest{Vo: args[0], Isolation: string(text), IfVersion: version}
			open := func() (xosv1connect.VOsClient, error) { return policies(args[0]) }
			return ask(cmd, open, xosv1connect.VOsClient.SetIsolation, req, func(w io.Writer, answer *xosv1.SetIsolationResponse) {
				fmt.Fprintf(w, "set the policy of isolation of %s: version %s\n", args[0], answer.Version)
			})
		},
	}, aVO, nil)
	c.Flags().StringVar(&version, "if-version", "", "replace this version only, as show gives it")
	return c
}

func newVOIsolationShowCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "show VO",
		Short: "Show a VO's policy of isolation, to its members and to root on the core",
		Long: `Show a VO's policy of isolation, to its members and to root on the core; on standard
error its version, and how many of the machines that serve the VO have it in force.
Each says so to the core every ten seconds; one that was not heard of for a day is not
counted. Whether the site of a machine lets it share anything is another matter: there,
xos guard status.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			open := func() (xosv1connect.VOsClient, error) { return policies(args[0]) }
			return ask(cmd, open, xosv1connect.VOsClient.GetIsolation, &xosv1.GetIsolationRequest{Vo: args[0]}, func(w io.Writer, answer *xosv1.GetIsolationResponse) {
				fmt.Fprintf(cmd.ErrOrStderr(), "version %s\n", answer.Version)
				printWhere(cmd.ErrOrStderr(), answer.Nodes)
				if answer.Isolation == "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s has set none: it shares nothing, but for what a machine's site says in its place\n", args[0])
					return
				}
				fmt.Fprintln(w, plainLines(answer.Isolation))
			})
		},
	}, aVO)
}

// printWhere says where a policy is in force, and which machines lag.
func printWhere(w io.Writer, nodes []*xosv1.IsolationAt) {
	have := 0
	for _, n := range nodes {
		if n.InForce {
			have++
		}
	}
	fmt.Fprintf(w, "in force on %d of %d machines that serve the VO\n", have, len(nodes))
	for _, n := range nodes {
		switch {
		case n.InForce:
		case time.Since(n.Heard.AsTime()) > time.Minute:
			fmt.Fprintf(w, "  not on %s: %s since %s\n", plain(n.Node), plain(n.Why), when(n.Heard))
		default:
			fmt.Fprintf(w, "  not on %s: %s\n", plain(n.Node), plain(n.Why))
		}
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
