package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/wallet"
)

func delegation() (xosv1connect.DelegationClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewDelegationClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newDelegateCommand() *cobra.Command {
	var status bool
	c := &cobra.Command{
		Use:   "delegate",
		Short: "Let this machine act for you, by your forwarded ssh-agent",
		Long: `In a login session: have your forwarded ssh-agent (ssh -A) sign that this machine
may act for you until your certificate ends: have your home, start jobs, and go
on by ssh. A VO may want that in place of the machine's own word that you logged
in. It also takes over a certificate that is newer than your login's, so that
your sessions go on after that one's end.

The signature is good for this machine, for one key of it, and for nothing else.
With --status it is shown what the machine holds for you, and until when.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if status {
				return ask(cmd, delegation, xosv1connect.DelegationClient.Status, &xosv1.DelegationStatusRequest{}, printDelegation)
			}
			client, err := delegation()
			if err != nil {
				return err
			}
			m, err := consentBy(cmd, client, os.Getenv("SSH_AUTH_SOCK"))
			if err != nil {
				return err
			}
			return show(cmd, m, func(w io.Writer) { printDelegation(w, m) })
		},
	}
	c.Flags().BoolVar(&status, "status", false, "show what this machine holds for you")
	return c
}

// consentBy has the agent at socket sign what this machine asks.
func consentBy(cmd *cobra.Command, client xosv1connect.DelegationClient, socket string) (*xosv1.DelegationStatusResponse, error) {
	now, err := client.Status(cmd.Context(), connect.NewRequest(&xosv1.DelegationStatusRequest{}))
	if err != nil {
		return nil, err
	}
	if socket == "" || socket == now.Msg.Agent {
		return nil, xos.Errorf(xos.NotFound, "no ssh-agent is forwarded to this session").WithHint("log in with ssh -A")
	}
	a, err := xos.ParseAccount(now.Msg.Account)
	if err != nil {
		return nil, err
	}
	cert, err := wallet.Forwarded(socket, a, time.Now())
	if err != nil {
		return nil, err
	}
	terms, err := client.Terms(cmd.Context(), connect.NewRequest(&xosv1.TermsRequest{SshCertificate: cert.Marshal()}))
	if err != nil {
		return nil, err
	}
	signature, err := wallet.SignConsent(socket, cert, terms.Msg.Content)
	if err != nil {
		return nil, err
	}
	resp, err := client.Consent(cmd.Context(), connect.NewRequest(&xosv1.ConsentRequest{SshCertificate: cert.Marshal(), Content: terms.Msg.Content, Signature: signature}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func printDelegation(w io.Writer, m *xosv1.DelegationStatusResponse) {
	if !m.Held {
		fmt.Fprintf(w, "%s holds no credential of %s: %s\n", m.Node, m.Account, orDash(m.Missing))
		return
	}
	fmt.Fprintf(w, "%s acts for %s until %s (%s; machine %d in a row)\n", m.Node, m.Account, when(m.Until), m.Mode, max(m.Depth, 1))
	fmt.Fprintf(w, "its credential is renewed; this one ends at %s\n", when(m.NotAfter))
	if m.SshNotAfter != nil {
		fmt.Fprintf(w, "ssh goes on from here, by %s\n", m.Agent)
	} else {
		fmt.Fprintf(w, "ssh does not go on from here: %s\n", orDash(m.SshMissing))
	}
}
