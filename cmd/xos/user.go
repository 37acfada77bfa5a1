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

func newUserCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Users of the grid"}
	c.AddCommand(newUserAddCommand(), newUserTokenCommand(), newUserPasswordCommand(), newUserDeleteCommand(), newUserListCommand())
	return c
}

func newUserAddCommand() *cobra.Command {
	var fullName string
	var password bool
	c := &cobra.Command{
		Use:   "add USER",
		Short: "Register a user; prints a one-time enrolment token unless a password is set",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &xosv1.CreateUserRequest{Name: args[0], FullName: fullName}
			if password {
				var err error
				if req.Password, err = newSecrets(cmd).choose("Password for " + args[0] + ": "); err != nil {
					return err
				}
			}
			return ask(cmd, vos, xosv1connect.VOsClient.CreateUser, req, func(w io.Writer, a *xosv1.CreateUserResponse) {
				fmt.Fprintf(w, "added user %s\n", args[0])
				if a.Token != "" {
					fmt.Fprintf(w, "enrolment token, for one use until %s: %s\n", when(a.TokenExpires), a.Token)
				}
			})
		},
	}
	c.Flags().StringVar(&fullName, "name", "", "the user's full name")
	c.Flags().BoolVar(&password, "password", false, "set a password: asked for, or one line of standard input")
	return c
}

func newUserTokenCommand() *cobra.Command {
	var valid time.Duration
	c := &cobra.Command{
		Use:   "token USER",
		Short: "Make a new one-time enrolment token",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.CreateToken, &xosv1.CreateTokenRequest{Name: args[0], Seconds: int64(valid.Seconds())}, func(w io.Writer, a *xosv1.CreateTokenResponse) { fmt.Fprintln(w, a.Token) })
		},
	}
	c.Flags().DurationVar(&valid, "valid", 7*24*time.Hour, "how long it may be used")
	return c
}

func newUserPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set-password USER",
		Short: "Set a user's password: asked for, or one line of standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := newSecrets(cmd).choose("New password for " + args[0] + ": ")
			if err != nil {
				return err
			}
			return ask(cmd, vos, xosv1connect.VOsClient.SetPassword, &xosv1.SetPasswordRequest{Name: args[0], Password: password}, func(w io.Writer, a *xosv1.SetPasswordResponse) { fmt.Fprintf(w, "set the password of %s\n", args[0]) })
		},
	}
}

func newUserDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete USER",
		Short: "Remove a user from the grid and from all VOs",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.DeleteUser, &xosv1.DeleteUserRequest{Name: args[0]}, func(w io.Writer, a *xosv1.DeleteUserResponse) { fmt.Fprintf(w, "removed user %s\n", args[0]) })
		},
	}
}

func newUserListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the users of the grid",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, vos, xosv1connect.VOsClient.ListUsers, &xosv1.ListUsersRequest{}, func(w io.Writer, a *xosv1.ListUsersResponse) {
				table(w, "USER\tNAME\tVOS\tADDED", func(row func(...any)) {
					for _, u := range a.Users {
						row(u.Name, orDash(u.FullName), orDash(strings.Join(u.Vos, ",")), when(u.Created))
					}
				})
			})
		},
	}
}
