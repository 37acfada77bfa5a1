package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/wallet"
)

func newLoginCommand() *cobra.Command {
	var core, token string
	var renew bool
	c := &cobra.Command{
		Use:   "login USER@VO",
		Short: "Get a credential for a VO, into ~/.xos and ssh-agent",
		Long: `Get a short-lived credential for a VO: an X.509 and an OpenSSH certificate on
one new key. It is kept in ~/.xos and, if SSH_AUTH_SOCK is set, in ssh-agent;
afterwards plain ssh USER@VO@NODE logs in.

The password is asked for on a terminal, or read as one line of standard input.
A one-time enrolment token is given with --token; a second line, or the prompt
after it, then chooses a password for the next time (empty: none).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := xos.ParseAccount(args[0])
			if err != nil {
				return err
			}
			t, err := findTarget(core)
			if err != nil {
				return err
			}
			w, err := wallet.Default()
			if err != nil {
				return err
			}
			r, err := wallet.NewRequest(a)
			if err != nil {
				return err
			}
			var answer *xosv1.IssueResponse
			if renew {
				answer, err = renewCredential(cmd.Context(), t, w, a, r)
			} else {
				answer, err = issueCredential(cmd, t, a, r, token)
			}
			if err != nil {
				return err
			}
			return keep(cmd, w, a, r, answer)
		},
	}
	c.Flags().StringVar(&core, "core", "", "address of the core, in place of the configured one")
	c.Flags().StringVar(&token, "token", "", "one-time enrolment token, in place of a password; - reads it from standard input")
	c.Flags().BoolVar(&renew, "renew", false, "renew a credential that is still valid: no password is needed")
	return c
}

func issueCredential(cmd *cobra.Command, t target, a xos.Account, r *wallet.Request, token string) (*xosv1.IssueResponse, error) {
	req := &xosv1.IssueRequest{Account: a.String(), Csr: r.CSR, Token: token}
	s := newSecrets(cmd)
	var err error
	switch token {
	case "":
		req.Password, err = s.ask("Password of " + a.String() + ": ")
	case "-":
		req.Token, err = s.ask("Enrolment token: ")
	}
	if err != nil {
		return nil, err
	}
	if token != "" {
		// Without a second line there is no new password, which is no error.
		if chosen, err := s.choose("Choose a password (empty: none): "); err == nil {
			req.NewPassword = chosen
		} else if s.terminal() {
			return nil, err
		}
	}
	client := xosv1connect.NewCredentialsClient(t.anonymous(), t.base(), rpc.ClientOptions()...)
	resp, err := client.Issue(cmd.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func renewCredential(ctx context.Context, t target, w wallet.Wallet, a xos.Account, r *wallet.Request) (*xosv1.IssueResponse, error) {
	old, err := w.Load(a)
	if err != nil {
		return nil, err
	}
	client := xosv1connect.NewCredentialsClient(t.as(old), t.base(), rpc.ClientOptions()...)
	resp, err := client.Renew(ctx, connect.NewRequest(&xosv1.RenewRequest{Csr: r.CSR}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// keep stores what the core issued, and tells the user.
func keep(cmd *cobra.Command, w wallet.Wallet, a xos.Account, r *wallet.Request, answer *xosv1.IssueResponse) error {
	cred, err := w.Store(a, r, answer.X509Chain, answer.SshCertificate)
	if err != nil {
		return err
	}
	agent := ""
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if err := wallet.AddToAgent(socket, cred); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "xos: warning: "+err.Error())
		} else {
			agent = " and ssh-agent"
		}
	}
	info := identity{
		Account: a.String(), Groups: answer.Attributes.GetGroups(), Roles: answer.Attributes.GetRoles(),
		Home: answer.Attributes.GetHome(), NotAfter: cred.NotAfter,
	}
	return show(cmd, info, func(out io.Writer) {
		fmt.Fprintf(out, "logged in as %s until %s (credential in %s%s)\n", a, cred.NotAfter.Local().Format(time.DateTime), w.Dir(), agent)
	})
}

func newLogoutCommand() *cobra.Command {
	var keepValid bool
	c := &cobra.Command{
		Use:   "logout [USER@VO]",
		Short: "Revoke and destroy a credential; without a name, all of them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := wallet.Default()
			if err != nil {
				return err
			}
			accounts := w.Accounts()
			if len(args) == 1 {
				a, err := xos.ParseAccount(args[0])
				if err != nil {
					return err
				}
				accounts = []xos.Account{a}
			}
			var out []string
			for _, a := range accounts {
				if err := logout(cmd, w, a, keepValid); err != nil {
					return err
				}
				out = append(out, a.String())
			}
			return show(cmd, map[string]any{"logged_out": out}, func(w io.Writer) {
				if len(out) == 0 {
					fmt.Fprintln(w, "you were not logged in")
					return
				}
				fmt.Fprintf(w, "logged out %s\n", strings.Join(out, ", "))
			})
		},
	}
	c.Flags().BoolVar(&keepValid, "no-revoke", false, "destroy the local copy only")
	return c
}

// logout revokes first: if the core cannot be reached the copy here goes all
// the same, and the user learns that the certificate stays valid.
func logout(cmd *cobra.Command, w wallet.Wallet, a xos.Account, keepValid bool) error {
	cred, err := w.Load(a)
	if err == nil && !keepValid && time.Now().Before(cred.NotAfter) {
		if err := revoke(cmd.Context(), cred); err != nil && !xos.Is(err, xos.Permission) {
			fmt.Fprintf(cmd.ErrOrStderr(), "xos: warning: not revoked, valid until %s: %v\n", cred.NotAfter.Local().Format(time.DateTime), err)
		}
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if err := wallet.RemoveFromAgent(socket, a); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "xos: warning: "+err.Error())
		}
	}
	return w.Remove(a)
}

func revoke(ctx context.Context, cred wallet.Credential) error {
	t, err := findTarget("")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := xosv1connect.NewCredentialsClient(t.as(cred), t.base(), rpc.ClientOptions()...)
	_, err = client.Revoke(ctx, connect.NewRequest(&xosv1.RevokeRequest{}))
	return err
}
