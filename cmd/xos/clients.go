package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/machine"
	"github.com/xtreemos/xos/vom/wallet"
)

// Where the local services listen.
const (
	coreSocket    = "/run/xos/core.sock"
	sessionSocket = "/run/xos/session.sock"
	clientConfig  = "/etc/xos/client.toml"
)

// clientSettings is /etc/xos/client.toml, or ~/.xos/client.toml before it.
type clientSettings struct {
	// Core is host:port of the core's API.
	Core string `toml:"core"`
}

// target is the grid a client speaks to.
type target struct {
	core  string
	roots []*x509.Certificate
}

// findTarget reads which core to use: the user's own choice, then the machine's.
func findTarget(override string) (target, error) {
	home, _ := os.UserHomeDir()
	for _, at := range []struct{ config, trust string }{
		{filepath.Join(home, ".xos", "client.toml"), filepath.Join(home, ".xos", "trust")},
		{clientConfig, machine.TrustDir},
	} {
		f, err := os.Open(at.config)
		if err != nil {
			continue
		}
		var s clientSettings
		err = toml.NewDecoder(f).DisallowUnknownFields().Decode(&s)
		f.Close()
		if err != nil {
			return target{}, xos.Errorf(xos.Invalid, "reading %s: %w", at.config, err)
		}
		roots, err := machine.LoadRoots(at.trust)
		if err != nil {
			return target{}, err
		}
		if override != "" {
			s.Core = override
		}
		return target{machine.Address(s.Core), roots}, nil
	}
	return target{}, xos.Errorf(xos.NotFound, "this machine knows no grid").WithHint("xos trust CORE")
}

func (t target) base() string { return "https://" + t.core }

// anonymous speaks to the core without a certificate.
func (t target) anonymous() *http.Client { return rpc.TLSClient(machine.CoreTLS(t.roots, nil)) }

// as speaks to the core with a user's certificate.
func (t target) as(c wallet.Credential) *http.Client {
	var cert credential.Certificate = func() (*tls.Certificate, error) { return &c.TLS, nil }
	return rpc.TLSClient(machine.CoreTLS(t.roots, cert))
}

// asAccount speaks to the core with the credential of an account in the wallet.
func asAccount(w wallet.Wallet, a xos.Account) (*http.Client, string, error) {
	cred, err := w.Load(a)
	if err != nil {
		return nil, "", err
	}
	t, err := findTarget("")
	if err != nil {
		return nil, "", err
	}
	return t.as(cred), t.base(), nil
}

// local speaks to a service of this machine; it fails with a hint if there is none.
func local(path, what, hint string) (*http.Client, error) {
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	switch {
	case os.IsPermission(err):
		return nil, xos.Errorf(xos.Permission, "only root may use %s", what).WithHint("run it with sudo")
	case err != nil:
		return nil, xos.Errorf(xos.Unavailable, "%s does not run on this machine", what).WithHint("%s", hint)
	}
	c.Close()
	return rpc.UnixClient(path), nil
}

// ask makes one call and shows its answer: service finds the client, method is
// the client's method, such as xosv1connect.VOsClient.CreateVO.
func ask[C, Q, A any](cmd *cobra.Command, service func() (C, error),
	method func(C, context.Context, *connect.Request[Q]) (*connect.Response[A], error),
	request *Q, text func(w io.Writer, answer *A)) error {
	client, err := service()
	if err != nil {
		return err
	}
	resp, err := method(client, cmd.Context(), connect.NewRequest(request))
	if err != nil {
		return err
	}
	return show(cmd, resp.Msg, func(w io.Writer) { text(w, resp.Msg) })
}

// admin speaks to the core on this machine as its administrator.
func admin() (*http.Client, error) {
	return local(coreSocket, "xos-core", "run this on the core machine; there, xos up starts it")
}

// gate speaks to this machine's session service as the calling user.
func gate() (*http.Client, error) {
	return local(sessionSocket, "xos-node", "log in to a machine of the grid: ssh USER@VO@NODE")
}
