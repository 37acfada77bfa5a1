package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func vos() (xosv1connect.VOsClient, error) {
	c, err := admin()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewVOsClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newVOCommand() *cobra.Command {
	c := &cobra.Command{Use: "vo", Short: "Virtual organisations and their members"}
	c.AddCommand(newVOCreateCommand(), newVODeleteCommand(), newVOListCommand(), newVOPolicyCommand(), newVOIsolationCommand(), newVORemovalCommand(), newVOOfflineCommand(), newVOMemberCommand())
	return c
}

func newVOCreateCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "create VO",
		Short: "Create a virtual organisation",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.CreateVO, &xosv1.CreateVORequest{Name: args[0]}, func(w io.Writer, a *xosv1.CreateVOResponse) { fmt.Fprintf(w, "created VO %s\n", args[0]) })
		},
	})
}

func newVODeleteCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "delete VO",
		Short: "Dissolve a virtual organisation: all its memberships end",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.DeleteVO, &xosv1.DeleteVORequest{Name: args[0]}, func(w io.Writer, a *xosv1.DeleteVOResponse) { fmt.Fprintf(w, "dissolved VO %s\n", args[0]) })
		},
	}, aVO)
}

func newVOListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the virtual organisations",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.ListVOs, &xosv1.ListVOsRequest{}, func(w io.Writer, a *xosv1.ListVOsResponse) {
				table(w, "VO\tMEMBERS\tGROUPS\tREMOVED\tOFFLINE\tCREATED", func(row func(...any)) {
					for _, vo := range a.Vos {
						row(vo.Name, vo.Members, orDash(strings.Join(vo.Groups, ",")), removalOf(vo), orDash(span(vo.OfflineSeconds)), when(vo.Created))
					}
				})
			})
		},
	}
}

func newVOPolicyCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "set-policy VO FILE",
		Short: "Set a VO's policy, a Cedar policy set; - reads standard input",
		Long: `Set a VO's policy, a Cedar policy set; - reads standard input, and an empty one
is the default: members may log in and run jobs.

Actions are "login" and "run", which it must permit; and "delegate" (a machine acts
for a member) and "sso" (she goes on from it by ssh), which it may forbid. For the
last two context.mode is "vouched" or, with her own signature, "signed", and
context.depth how many machines it comes through; @validity("20m") before a policy
that permits them bounds how long a machine's credential lasts until its renewal.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var text []byte
			var err error
			if args[1] == "-" {
				text, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
			} else {
				text, err = os.ReadFile(args[1])
			}
			if err != nil {
				return xos.Errorf(xos.Invalid, "reading the policy: %w", err)
			}
			return ask(cmd, vos, xosv1connect.VOsClient.SetPolicy, &xosv1.SetPolicyRequest{Vo: args[0], Policy: string(text)}, func(w io.Writer, a *xosv1.SetPolicyResponse) { fmt.Fprintf(w, "set the policy of %s\n", args[0]) })
		},
	}, aVO, nil)
}
