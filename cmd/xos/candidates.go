package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom/wallet"
)

// completionTime bounds an answer to the shell, for which somebody waits between two
// keys. What is not known by then is left out, without a word.
const completionTime = 80 * time.Millisecond

// candidates are what may stand in one place of a command line, after the
// arguments before it.
type candidates func(ctx context.Context, before []string) []string

// known makes candidates of what the caller may see from several places: they are
// asked at the same time, and each may take until ctx ends.
func known(sources ...candidates) candidates {
	return func(ctx context.Context, before []string) (all []string) {
		answers := make(chan []string, len(sources))
		for _, s := range sources {
			go func() { answers <- s(ctx, before) }()
		}
		for range sources {
			select {
			case a := <-answers:
				all = append(all, a...)
			case <-ctx.Done():
				return all
			}
		}
		return all
	}
}

// fixed are words.
func fixed(words ...string) candidates {
	return func(context.Context, []string) []string { return words }
}

// complete has the shell complete a command's arguments, in order; where there is
// nil they are files.
func complete(c *cobra.Command, places ...candidates) *cobra.Command {
	c.ValidArgsFunction = func(cmd *cobra.Command, before []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(before) >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		place := places[len(before)]
		if place == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTime)
		defer cancel()
		found := slices.DeleteFunc(place(ctx, before), func(s string) bool { return !strings.HasPrefix(s, begun) })
		slices.Sort(found)
		return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// The places: an account of which the caller may know, its VO, and users of the
// VO that is the argument before.
var (
	anAccount = known(ownAccounts, sessionAccount, nodeAccounts, gridAccounts)
	aVO       = known(vosOf(ownAccounts), vosOf(sessionAccount), vosOf(nodeAccounts), gridVOs)
)

// vosOf gives the VOs of accounts.
func vosOf(accounts candidates) candidates {
	return func(ctx context.Context, before []string) (names []string) {
		for _, name := range accounts(ctx, before) {
			if a, err := xos.ParseAccount(name); err == nil {
				names = append(names, string(a.VO))
			}
		}
		return names
	}
}

// ownAccounts are those of the caller's wallet.
func ownAccounts(context.Context, []string) (names []string) {
	w, err := wallet.Default()
	if err != nil {
		return nil
	}
	for _, a := range w.Accounts() {
		names = append(names, a.String())
	}
	return names
}

// sessionAccount is that of the session in which this runs.
func sessionAccount(ctx context.Context, _ []string) []string {
	if uid := uint32(os.Getuid()); uid < session.FirstID || uid > session.LastID {
		return nil
	}
	c, err := gate()
	if err != nil {
		return nil
	}
	resp, err := xosv1connect.NewSessionClient(c, rpc.UnixBase, rpc.ClientOptions()...).WhoAmI(ctx, connect.NewRequest(&xosv1.WhoAmIRequest{}))
	if err != nil {
		return nil
	}
	return []string{resp.Msg.Attributes.GetUser() + "@" + resp.Msg.Attributes.GetVo()}
}

// nodeAccounts are those that have a uid on this machine, for root.
func nodeAccounts(ctx context.Context, _ []string) (names []string) {
	if os.Geteuid() != 0 {
		return nil
	}
	client, err := uids()
	if err != nil {
		return nil
	}
	resp, err := client.ListUIDs(ctx, connect.NewRequest(&xosv1.ListUIDsRequest{}))
	if err != nil {
		return nil
	}
	for _, u := range resp.Msg.Uids {
		names = append(names, u.Account)
	}
	return names
}

// asRoot asks the core on this machine, for its root.
func asRoot(list func(context.Context, xosv1connect.VOsClient, []string) []string) candidates {
	return func(ctx context.Context, before []string) []string {
		if os.Geteuid() != 0 {
			return nil
		}
		client, err := vos()
		if err != nil {
			return nil
		}
		return list(ctx, client, before)
	}
}

var (
	gridVOs      = asRoot(listVOs)
	gridUsers    = asRoot(listUsers)
	gridAccounts = asRoot(listAccounts)
	gridMembers  = asRoot(listMembers)
)

func listVOs(ctx context.Context, client xosv1connect.VOsClient, _ []string) (names []string) {
	resp, err := client.ListVOs(ctx, connect.NewRequest(&xosv1.ListVOsRequest{}))
	if err != nil {
		return nil
	}
	for _, vo := range resp.Msg.Vos {
		names = append(names, vo.Name)
	}
	return names
}

func listUsers(ctx context.Context, client xosv1connect.VOsClient, _ []string) (names []string) {
	resp, err := client.ListUsers(ctx, connect.NewRequest(&xosv1.ListUsersRequest{}))
	if err != nil {
		return nil
	}
	for _, u := range resp.Msg.Users {
		names = append(names, u.Name)
	}
	return names
}

func listAccounts(ctx context.Context, client xosv1connect.VOsClient, _ []string) (names []string) {
	resp, err := client.ListUsers(ctx, connect.NewRequest(&xosv1.ListUsersRequest{}))
	if err != nil {
		return nil
	}
	for _, u := range resp.Msg.Users {
		for _, vo := range u.Vos {
			names = append(names, u.Name+"@"+vo)
		}
	}
	return names
}

// listMembers gives the users of the VO that is the argument before.
func listMembers(ctx context.Context, client xosv1connect.VOsClient, before []string) (names []string) {
	if len(before) == 0 {
		return nil
	}
	resp, err := client.ListMembers(ctx, connect.NewRequest(&xosv1.ListMembersRequest{Vo: before[len(before)-1]}))
	if err != nil {
		return nil
	}
	for _, m := range resp.Msg.Members {
		names = append(names, m.User)
	}
	return names
}
