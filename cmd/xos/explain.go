package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/wallet"
)

// explanation is what one witness says.
type explanation struct {
	Source  string   `json:"source"`
	Allowed bool     `json:"allowed"`
	Lines   []string `json:"lines"`
}

func newExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [USER@VO | SERIAL | SESSION]",
		Short: "Say why a login or request is allowed or refused",
		Long: `Ask everyone who decides about an account: the core, with your own credential
(even one that is revoked) or as root on the core; and this machine, if it is one
of the grid's. Without a name it is about yourself. The exit status is 0 if
access is allowed and 77 if it is refused.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			subject := ""
			if len(args) == 1 {
				subject = args[0]
			}
			var all []explanation
			var failed error
			for _, witness := range []func(*cobra.Command, string) (*explanation, error){explainCore, explainHere} {
				e, err := witness(cmd, subject)
				if err != nil {
					failed = err
				} else if e != nil {
					all = append(all, *e)
				}
			}
			if len(all) == 0 {
				if failed == nil {
					failed = xos.Errorf(xos.NotFound, "nobody here can explain").WithHint("xos login, or run this on a machine of the grid")
				}
				return failed
			}
			allowed := true
			for _, e := range all {
				allowed = allowed && e.Allowed
			}
			if err := show(cmd, all, func(w io.Writer) { printExplanations(w, all) }); err != nil {
				return err
			}
			if !allowed {
				return exitError(xos.Permission.ExitStatus())
			}
			return nil
		},
	}
}

func printExplanations(w io.Writer, all []explanation) {
	for _, e := range all {
		verdict := "refused"
		if e.Allowed {
			verdict = "allowed"
		}
		fmt.Fprintf(w, "%s: %s\n", e.Source, verdict)
		for _, line := range e.Lines {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

// explainCore asks the core: as administrator where its socket is, else with
// the account's own credential. Nil if neither is to be had.
func explainCore(cmd *cobra.Command, subject string) (*explanation, error) {
	var client *http.Client
	base := rpc.UnixBase
	if c, err := admin(); err == nil {
		client = c
	} else {
		w, err := wallet.Default()
		if err != nil {
			return nil, nil
		}
		a, err := w.Current()
		if subject != "" {
			a, err = xos.ParseAccount(subject)
		}
		if err != nil {
			return nil, nil
		}
		cred, err := w.Load(a)
		if err != nil {
			return nil, nil
		}
		t, err := findTarget("")
		if err != nil {
			return nil, err
		}
		client, base, subject = t.as(cred), t.base(), a.String()
	}
	req := &xosv1.ExplainRequest{Account: subject}
	if _, err := xos.ParseAccount(subject); err != nil {
		req = &xosv1.ExplainRequest{Serial: subject}
	}
	resp, err := xosv1connect.NewCredentialsClient(client, base, rpc.ClientOptions()...).Explain(cmd.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return &explanation{"core", resp.Msg.Allowed, resp.Msg.Lines}, nil
}

// explainHere asks this machine's session service; nil if it has none.
func explainHere(cmd *cobra.Command, subject string) (*explanation, error) {
	c, err := gate()
	if err != nil {
		return nil, nil
	}
	resp, err := xosv1connect.NewSessionClient(c, rpc.UnixBase, rpc.ClientOptions()...).
		ExplainHere(cmd.Context(), connect.NewRequest(&xosv1.ExplainHereRequest{Subject: subject}))
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "this machine"
	}
	return &explanation{name, resp.Msg.Allowed, resp.Msg.Lines}, nil
}
