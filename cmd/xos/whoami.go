package main

import (
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
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/wallet"
)

// identity is what whoami and login tell.
type identity struct {
	Account  string    `json:"account"`
	Groups   []string  `json:"groups"`
	Roles    []string  `json:"roles"`
	Home     string    `json:"home"`
	NotAfter time.Time `json:"not_after"`
	Node     string    `json:"node,omitempty"`
	Session  string    `json:"session,omitempty"`
	UID      uint32    `json:"uid,omitempty"`
}

func newWhoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are in the grid, and until when",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			find := fromWallet
			if uid := uint32(os.Getuid()); uid >= session.FirstID && uid <= session.LastID {
				find = fromSession
			}
			id, err := find(cmd)
			if err != nil {
				return err
			}
			if err := show(cmd, id, id.print); err != nil {
				return err
			}
			if time.Now().After(id.NotAfter) {
				return xos.Errorf(xos.Expired, "this credential has expired").WithHint("xos login %s", id.Account)
			}
			return nil
		},
	}
}

func (id identity) print(w io.Writer) {
	fmt.Fprintf(w, "account:     %s\n", id.Account)
	fmt.Fprintf(w, "groups:      %s\n", orDash(strings.Join(id.Groups, ", ")))
	fmt.Fprintf(w, "roles:       %s\n", orDash(strings.Join(id.Roles, ", ")))
	fmt.Fprintf(w, "home volume: %s\n", orDash(id.Home))
	fmt.Fprintf(w, "valid until: %s\n", id.NotAfter.Local().Format(time.DateTime))
	if id.Node != "" {
		fmt.Fprintf(w, "session:     %s on %s, uid %d\n", id.Session, id.Node, id.UID)
	}
}

// fromSession asks the machine whose login this is.
func fromSession(cmd *cobra.Command) (identity, error) {
	c, err := gate()
	if err != nil {
		return identity{}, err
	}
	resp, err := xosv1connect.NewSessionClient(c, rpc.UnixBase, rpc.ClientOptions()...).
		WhoAmI(cmd.Context(), connect.NewRequest(&xosv1.WhoAmIRequest{}))
	if err != nil {
		return identity{}, err
	}
	m, a := resp.Msg, resp.Msg.Attributes
	return identity{
		Account: a.GetUser() + "@" + a.GetVo(), Groups: a.GetGroups(), Roles: a.GetRoles(), Home: a.GetHome(),
		NotAfter: m.NotAfter.AsTime(), Node: m.Node, Session: m.Session, UID: m.Uid,
	}, nil
}

// fromWallet reads the user's own credential.
func fromWallet(*cobra.Command) (identity, error) {
	w, err := wallet.Default()
	if err != nil {
		return identity{}, err
	}
	a, err := w.Current()
	if err != nil {
		return identity{}, err
	}
	cred, err := w.Load(a)
	if err != nil {
		return identity{}, err
	}
	id, err := credential.FromX509(cred.TLS.Leaf)
	if err != nil {
		return identity{}, err
	}
	out := identity{Account: id.Account.String(), Home: string(id.Home), NotAfter: id.NotAfter}
	for _, g := range id.Groups {
		out.Groups = append(out.Groups, string(g))
	}
	for _, r := range id.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	return out, nil
}
