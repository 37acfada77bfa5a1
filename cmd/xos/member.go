package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
)

func newVOMemberCommand() *cobra.Command {
	c := &cobra.Command{Use: "member", Short: "Members of a virtual organisation"}
	c.AddCommand(newMemberAddCommand(), newMemberRemoveCommand(), newMemberListCommand())
	return c
}

func newMemberAddCommand() *cobra.Command {
	var req xosv1.AddMemberRequest
	c := complete(&cobra.Command{
		Use:   "add VO USER",
		Short: "Make a user a member; for a member, set groups and roles anew",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Vo, req.User = args[0], args[1]
			return ask(cmd, vos, xosv1connect.VOsClient.AddMember, &req, func(w io.Writer, a *xosv1.AddMemberResponse) {
				fmt.Fprintf(w, "%s is a member of %s; home volume %s\n", req.User, req.Vo, orDash(a.Home))
				if a.Restored {
					fmt.Fprintln(w, "her removal is undone: what was frozen goes on, and her certificates hold again")
				}
			})
		},
	}, aVO, gridUsers)
	c.Flags().StringSliceVar(&req.Groups, "group", nil, "group within the VO (repeatable)")
	c.Flags().StringSliceVar(&req.Roles, "role", nil, "role within the VO (repeatable)")
	return c
}

func newMemberRemoveCommand() *cobra.Command {
	var reason, fate string
	c := complete(&cobra.Command{
		Use:   "remove VO USER",
		Short: "End a membership: logins are refused within seconds",
		Long: `End a membership. Within seconds no machine lets her in any more. What she has
running goes as the VO's policy says (xos vo set-removal), or as --running does:
it is ended, frozen, or may finish.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.RemoveMember, &xosv1.RemoveMemberRequest{Vo: args[0], User: args[1], Reason: reason, Fate: fate}, func(w io.Writer, a *xosv1.RemoveMemberResponse) {
				fmt.Fprintf(w, "%s is no longer a member of %s\n", args[1], args[0])
			})
		},
	}, aVO, gridMembers)
	c.Flags().StringVar(&reason, "reason", "", "why, for the user to read")
	c.Flags().StringVar(&fate, "running", "", "end, freeze or finish what she has running (default: the VO's policy)")
	return c
}

func newMemberListCommand() *cobra.Command {
	return complete(&cobra.Command{
		Use:   "list VO",
		Short: "List the members of a VO",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.ListMembers, &xosv1.ListMembersRequest{Vo: args[0]}, func(w io.Writer, a *xosv1.ListMembersResponse) {
				table(w, "USER\tGROUPS\tROLES\tHOME", func(row func(...any)) {
					for _, m := range a.Members {
						row(m.User, orDash(strings.Join(m.Groups, ",")), orDash(strings.Join(m.Roles, ",")), orDash(m.Home))
					}
				})
			})
		},
	}, aVO)
}
