package main

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/wallet"
)

func newAuditCommand() *cobra.Command {
	var node bool
	c := &cobra.Command{Use: "audit", Short: "The core's log of decisions, or a node's"}
	c.PersistentFlags().BoolVar(&node, "node", false, "the log of this machine's own decisions, as root: logins, uids, jobs")
	open := func() (xosv1connect.AuditClient, error) {
		if node {
			return nodeLog()
		}
		return auditLog()
	}
	c.AddCommand(newAuditListCommand(open), newAuditVerifyCommand(open))
	return c
}

// nodeLog speaks to this machine's xos-node.
func nodeLog() (xosv1connect.AuditClient, error) {
	c, err := gate()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewAuditClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

// auditLog speaks to the core: as its administrator where its socket is, else
// with the credential of the current account.
func auditLog() (xosv1connect.AuditClient, error) {
	if c, err := admin(); err == nil {
		return xosv1connect.NewAuditClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
	}
	w, err := wallet.Default()
	if err != nil {
		return nil, err
	}
	a, err := w.Current()
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "you are neither root on the core nor logged in to the grid").
			WithHint("run it with sudo on the core, with --node for this machine's own log, or as a VO's administrator: xos login USER@VO")
	}
	c, base, err := asAccount(w, a)
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewAuditClient(c, base, rpc.ClientOptions()...), nil
}

func newAuditListCommand(open func() (xosv1connect.AuditClient, error)) *cobra.Command {
	var req xosv1.ListAuditRequest
	var since string
	c := &cobra.Command{
		Use:   "list",
		Short: "List who asked for what, and what was answered",
		Long: `List the newest records of the core's log, oldest first. Root on the core sees
all of them; who has the role admin in a VO sees what concerns that VO, with the
credential of xos login. A machine of the grid keeps a log of its own decisions:
--node lists that one. If there are older records, the last line says how to list
them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Since, err = sinceWhen(since, time.Now()); err != nil {
				return err
			}
			return ask(cmd, open, xosv1connect.AuditClient.ListAudit, &req, printAudit)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vo, "vo", "", "only what concerns this VO")
	f.StringVar(&req.User, "user", "", "only what concerns this user")
	f.StringVar(&req.Action, "action", "", "only this action, such as issue or RemoveMember")
	f.StringVar(&since, "since", "", "only from then on: 90m, 2026-11-25 or 2026-11-25T14:00:00Z")
	f.BoolVar(&req.Refused, "refused", false, "only refusals")
	f.Uint64Var(&req.Before, "before", 0, "only records with a lower number")
	f.Int64Var(&req.Limit, "limit", 0, "at most so many, the newest (default 100, at most 1000)")
	return c
}

// sinceWhen reads a time, or how long ago it was; nil for "".
func sinceWhen(s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return timestamppb.New(now.Add(-ago)), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return timestamppb.New(t), nil
	}
	for _, layout := range []string{time.DateOnly, time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, xos.Errorf(xos.Invalid, "%.80q is no time", s).WithHint("--since 90m, --since 2026-11-25 or --since 2026-11-25T14:00:00Z")
}

func printAudit(w io.Writer, a *xosv1.ListAuditResponse) {
	table(w, "NUMBER\tTIME\tWHO\tACTION\tABOUT\tANSWER\tREASON", func(row func(...any)) {
		for _, r := range a.Records {
			answer := "refused"
			if r.Allowed {
				answer = "allowed"
			}
			row(r.Seq, when(r.Time), plain(r.Actor), plain(path.Base(r.Action)), plain(r.Subject), answer, plain(r.Reason))
		}
	})
	if a.Before > 0 {
		fmt.Fprintf(w, "older ones: add --before %d\n", a.Before)
	}
}

// plain keeps what strangers wrote from moving a terminal's cursor or a
// table's columns.
func plain(s string) string {
	q := strconv.QuoteToGraphic(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	return orDash(strings.ReplaceAll(q, `\\`, `\`))
}

func newAuditVerifyCommand(open func() (xosv1connect.AuditClient, error)) *cobra.Command {
	var noted string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that no record was changed, removed or put in",
		Long: `Walk the chain of hashes of the whole log, as root on the core, or with --node on
a node. The exit status
is 0 if the log is whole and 1 if it is broken: then the first record is named
that is not what was written there.

A log that was cut off at its end, or written anew as a whole, is found out only
with what was noted elsewhere: keep the number and hash that this prints, and
give them later with --noted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var req xosv1.VerifyAuditRequest
			if noted != "" {
				number, hash, _ := strings.Cut(noted, ":")
				n, err := strconv.ParseUint(number, 10, 64)
				if err != nil {
					return xos.Errorf(xos.Invalid, "%.80q is no NUMBER:HASH", noted).WithHint("give what xos audit verify printed")
				}
				req.Seq, req.Hash = n, hash
			}
			client, err := open()
			if err != nil {
				return err
			}
			resp, err := client.VerifyAudit(cmd.Context(), connect.NewRequest(&req))
			if err != nil {
				return err
			}
			return verdict(cmd, resp.Msg)
		},
	}
	c.Flags().StringVar(&noted, "noted", "", "NUMBER:HASH that an earlier xos audit verify printed")
	return c
}

// verdict shows what came out, and ends with a status that scripts can use.
func verdict(cmd *cobra.Command, a *xosv1.VerifyAuditResponse) error {
	err := show(cmd, a, func(w io.Writer) {
		if a.Whole {
			fmt.Fprintf(w, "whole: %d records\n%d:%s\n", a.Seq, a.Seq, a.Hash)
			return
		}
		fmt.Fprintf(w, "broken: line %d %s\nwhole up to %d:%s\n", a.Broken, plain(a.Reason), a.Seq, a.Hash)
	})
	if err == nil && !a.Whole {
		return exitError(1)
	}
	return err
}
