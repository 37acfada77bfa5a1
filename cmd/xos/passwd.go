package main

import (
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom/wallet"
)

func newPasswdCommand() *cobra.Command {
	var core string
	c := &cobra.Command{
		Use:   "passwd [USER@VO]",
		Short: "Change your grid password",
		Long: `Change your grid password, which is one for all your VOs. The old one is asked
for, then the new one, twice; or they are read as two lines of standard input.
Without a name it is that of the session, or of the newest xos login.

Sessions and certificates go on. Who has lost the password, or never had one,
gets a token of an administrator and chooses one with xos login --token.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := whose(cmd, args)
			if err != nil {
				return err
			}
			t, err := findTarget(core)
			if err != nil {
				return err
			}
			// What is certified with it is not kept, nor is the key.
			r, err := wallet.NewRequest(a)
			if err != nil {
				return err
			}
			s := newSecrets(cmd)
			req := &xosv1.IssueRequest{Account: a.String(), Csr: r.CSR}
			if req.Password, err = s.ask("Old password of " + string(a.User) + ": "); err != nil {
				return err
			}
			if req.NewPassword, err = s.choose("New password: "); err != nil {
				return err
			}
			if req.NewPassword == "" {
				return xos.Errorf(xos.Invalid, "an empty password is none: it was not changed")
			}
			client := xosv1connect.NewCredentialsClient(t.anonymous(), t.base(), rpc.ClientOptions()...)
			if _, err := client.Issue(cmd.Context(), connect.NewRequest(req)); err != nil {
				return err
			}
			return show(cmd, map[string]any{"changed": a.User}, func(w io.Writer) { fmt.Fprintf(w, "changed the password of %s\n", a.User) })
		},
	}
	c.Flags().StringVar(&core, "core", "", "address of the core, in place of the configured one")
	return c
}

// whose account a command is about: the one named, or the session's, or the
// wallet's.
func whose(cmd *cobra.Command, args []string) (xos.Account, error) {
	if len(args) == 1 {
		return xos.ParseAccount(args[0])
	}
	if uid := uint32(os.Getuid()); uid >= session.FirstID && uid <= session.LastID {
		id, err := fromSession(cmd)
		if err != nil {
			return xos.Account{}, err
		}
		return xos.ParseAccount(id.Account)
	}
	w, err := wallet.Default()
	if err != nil {
		return xos.Account{}, err
	}
	return w.Current()
}
