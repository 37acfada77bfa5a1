package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
)

func newBanCommand() *cobra.Command {
	c := &cobra.Command{Use: "ban", Short: "Users, keys and machines that are kept out of the grid"}
	c.AddCommand(newBanAddCommand(), newBanRemoveCommand(), newBanListCommand())
	return c
}

const banSubjects = `SUBJECT is a user (alice), an account (alice@physics), the fingerprint of a key as
ssh-keygen -l prints it (SHA256:…), a certificate's serial, or with --node a machine.`

// banKind tells what a subject names. No user's name begins with a digit or
// has a colon in it.
func banKind(subject string, node bool) string {
	switch {
	case node:
		return "node"
	case strings.HasPrefix(subject, "SHA256:"):
		return "key"
	case subject != "" && strings.Trim(subject, "0123456789") == "":
		return "certificate"
	case strings.Contains(subject, "@"):
		return "account"
	}
	return "user"
}

func newBanAddCommand() *cobra.Command {
	var req xosv1.AddBanRequest
	var node bool
	var long time.Duration
	c := &cobra.Command{
		Use:   "add SUBJECT",
		Short: "Keep somebody or something out, whatever certificates there are",
		Long: `Within seconds no machine lets it in any more, connections of its are cut, and what
it runs is ended. Memberships stay: they count again when the ban is lifted. Of a
key, the certificates so far stay refused for good.

` + banSubjects,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Kind, req.Subject, req.Seconds = banKind(args[0], node), args[0], int64(long.Seconds())
			return ask(cmd, revocations, xosv1connect.RevocationsClient.AddBan, &req, func(w io.Writer, a *xosv1.AddBanResponse) {
				fmt.Fprintf(w, "banned the %s %s%s\n", a.Ban.Kind, a.Ban.Subject, untilOf(a.Ban))
			})
		},
	}
	c.Flags().BoolVar(&node, "node", false, "SUBJECT is a machine")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the one concerned to read")
	c.Flags().DurationVar(&long, "for", 0, "for how long (default: until it is lifted)")
	return c
}

func untilOf(b *xosv1.Ban) string {
	if b.Until == nil {
		return ""
	}
	return " until " + when(b.Until)
}

func newBanRemoveCommand() *cobra.Command {
	var node bool
	c := &cobra.Command{
		Use:   "remove SUBJECT",
		Short: "Lift a ban",
		Long:  "Lift a ban.\n\n" + banSubjects,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &xosv1.RemoveBanRequest{Kind: banKind(args[0], node), Subject: args[0]}
			return ask(cmd, revocations, xosv1connect.RevocationsClient.RemoveBan, req, func(w io.Writer, _ *xosv1.RemoveBanResponse) {
				fmt.Fprintf(w, "lifted the ban of the %s %s\n", req.Kind, req.Subject)
			})
		},
	}
	c.Flags().BoolVar(&node, "node", false, "SUBJECT is a machine")
	return c
}

func newBanListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the bans in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, revocations, xosv1connect.RevocationsClient.ListBans, &xosv1.ListBansRequest{}, func(w io.Writer, a *xosv1.ListBansResponse) {
				table(w, "KIND\tSUBJECT\tSINCE\tUNTIL\tREASON", func(row func(...any)) {
					for _, b := range a.Bans {
						until := "-"
						if b.Until != nil {
							until = when(b.Until)
						}
						row(b.Kind, b.Subject, when(b.Since), until, orDash(b.Reason))
					}
				})
			})
		},
	}
}
