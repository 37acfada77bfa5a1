package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/wallet"
)

// explanation is what one witness says.
type explanation struct {
	Source  string   `json:"source"`
	Allowed bool     `json:"allowed"`
	Lines   []string `json:"lines"`
	Rules   []rule   `json:"rules,omitempty"`
}

// rule is what one rule said.
type rule struct {
	Name    string `json:"name"`
	Refused bool   `json:"refused"`
	Text    string `json:"text"`
	Change  string `json:"change,omitempty"`
}

func rulesOf(list []*xosv1.Rule) (out []rule) {
	for _, r := range list {
		out = append(out, rule{r.Name, r.Refused, r.Text, r.Change})
	}
	return out
}

func newExplainCommand() *cobra.Command {
	c := complete(&cobra.Command{
		Use:   "explain [USER@VO | SERIAL | SESSION | LOGIN]",
		Short: "Say why a login or request is allowed or refused",
		Long: `Ask everyone who decides about an account: the core, with your own credential
(even one that is revoked) or as root on the core; and this machine, if it is one
of the grid's. Without a name it is about yourself. Every rule that took part is
told, and of those that refuse what would change that; root may ask about anybody,
and is told by which policies. The exit status is 0 if access is allowed and 77 if
it is refused.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return explain(cmd, "", optional(args)) },
	}, anAccount)
	c.AddCommand(complete(&cobra.Command{
		Use:   "user [USER@VO]",
		Short: "Say what decides about an account, with any certificate that is valid",
		Args:  cobra.MaximumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return explain(cmd, "user", optional(args)) },
	}, anAccount), &cobra.Command{
		Use:   "cert SERIAL | FILE",
		Short: "Say what decides about one certificate, by its serial or in a file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serial, err := serialOf(args[0])
			if err != nil {
				return err
			}
			return explain(cmd, "cert", serial)
		},
	}, complete(&cobra.Command{
		Use:   "login ID",
		Short: "Say why this machine refused a login, by the id in its log (r-…) or of a session (s-…)",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return explain(cmd, "login", args[0]) },
	}))
	return c
}

func optional(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return ""
}

// serialOf gives the serial of a certificate in a file, X.509 in PEM or
// OpenSSH's; of what is a number already, that.
func serialOf(arg string) (string, error) {
	if arg != "" && strings.Trim(arg, "0123456789") == "" {
		return arg, nil
	}
	data, err := os.ReadFile(arg)
	if err != nil {
		return "", xos.Errorf(xos.Invalid, "reading the certificate: %w", err).WithHint("give its serial, or a file")
	}
	if block, _ := pem.Decode(data); block != nil {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", xos.Errorf(xos.Invalid, "reading %s: %w", arg, err)
		}
		return c.SerialNumber.String(), nil
	}
	c, err := credential.ParseSSH(data)
	if err != nil {
		return "", err
	}
	return strconv.FormatUint(c.Serial, 10), nil
}

// explain asks every witness and shows what they say.
func explain(cmd *cobra.Command, kind, subject string) error {
	witnesses := []func(*cobra.Command, string, string) (*explanation, error){explainCore, explainHere}
	if kind == "login" || strings.HasPrefix(subject, "r-") {
		witnesses = witnesses[1:] // only the machine knows its logins
	}
	var all []explanation
	var failed error
	for _, witness := range witnesses {
		e, err := witness(cmd, kind, subject)
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
		for _, r := range e.Rules {
			word := "passed "
			if r.Refused {
				word = "refused"
			}
			fmt.Fprintf(w, "  %s  %-22s %s\n", word, r.Name, r.Text)
			if r.Change != "" {
				fmt.Fprintf(w, "           %-22s what changes it: %s\n", "", r.Change)
			}
		}
	}
}

// explainCore asks the core: as administrator where its socket is, else with
// the account's own credential. Nil if neither is to be had.
func explainCore(cmd *cobra.Command, kind, subject string) (*explanation, error) {
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
		if subject != "" && kind != "cert" {
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
		client, base = t.as(cred), t.base()
		if kind != "cert" {
			subject = a.String()
		}
	}
	req := &xosv1.ExplainRequest{Account: subject}
	if _, err := xos.ParseAccount(subject); err != nil {
		req = &xosv1.ExplainRequest{Serial: subject}
	}
	resp, err := xosv1connect.NewCredentialsClient(client, base, rpc.ClientOptions()...).Explain(cmd.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return &explanation{"core", resp.Msg.Allowed, resp.Msg.Lines, rulesOf(resp.Msg.Rules)}, nil
}

// explainHere asks this machine's session service; nil if it has none.
func explainHere(cmd *cobra.Command, kind, subject string) (*explanation, error) {
	c, err := gate()
	if err != nil {
		return nil, nil
	}
	resp, err := xosv1connect.NewSessionClient(c, rpc.UnixBase, rpc.ClientOptions()...).
		ExplainHere(cmd.Context(), connect.NewRequest(&xosv1.ExplainHereRequest{Subject: subject, Kind: kind}))
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "this machine"
	}
	return &explanation{name, resp.Msg.Allowed, resp.Msg.Lines, rulesOf(resp.Msg.Rules)}, nil
}
