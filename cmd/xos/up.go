package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
)

// Files that joining writes for sshd: what certifies its host key.
const (
	hostKey      = "/etc/ssh/ssh_host_ed25519_key.pub"
	hostCert     = "/etc/ssh/ssh_host_ed25519_key-cert.pub"
	hostCertConf = "/etc/ssh/sshd_config.d/61-xos-host.conf"
)

// unit is one service of the project on this machine.
type unit struct {
	name, binary string
	service      vom.Service // as which it joins; "" for the core
	state        string      // its state directory
	config       string      // says where the core is
}

var units = []unit{
	{"xos-core.service", "/usr/sbin/xos-core", "", "/var/lib/xos/core", "/etc/xos/core.toml"},
	{"xos-osd.service", "/usr/sbin/xos-osd", vom.ServiceStorage, "/var/lib/xos/osd", "/etc/xos/osd.toml"},
	{"xos-node.service", "/usr/sbin/xos-node", vom.ServiceNode, "/var/lib/xos/node", "/etc/xos/node.toml"},
}

func (u unit) installed() bool {
	_, err := os.Stat(u.binary)
	return err == nil
}

func (u unit) joined() bool {
	_, err := os.Stat(filepath.Join(u.state, "cert.pem"))
	return err == nil
}

func newUpCommand() *cobra.Command {
	var up upRequest
	c := &cobra.Command{
		Use:   "up [--join CORE --token TOKEN]",
		Short: "Start XtreemOS on this machine: a grid of its own, or a part of another",
		Long: `Start the services that are installed here. Without --join, a machine with the
core package becomes a grid: its own certification authorities, records and
storage. With --join it becomes a part of an existing one; the token comes from
"xos node token" on the core, and lets the machine know the right core.

It may be repeated: what is there already stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return xos.Errorf(xos.Permission, "only root may set up a machine").WithHint("sudo xos up")
			}
			return up.run(cmd)
		},
	}
	c.Flags().StringVar(&up.core, "join", "", "address of the core to join")
	c.Flags().StringVar(&up.token, "token", "", "join token; - reads it from standard input")
	c.Flags().StringVar(&up.name, "name", "", "node name (default: the host name)")
	return c
}

// upRequest is one call of xos up.
type upRequest struct{ core, token, name string }

func (u *upRequest) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	say := func(format string, args ...any) {
		if !jsonOutput(cmd) {
			fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
		}
	}
	if u.token == "-" {
		var err error
		if u.token, err = newSecrets(cmd).ask("Join token: "); err != nil {
			return err
		}
	}
	var started []string
	for _, unit := range units {
		if !unit.installed() || unit.service == "" && u.core != "" {
			continue
		}
		if unit.service != "" && !unit.joined() {
			if err := u.join(ctx, unit, say); err != nil {
				return err
			}
		}
		say("starting %s", unit.name)
		if err := systemctl(ctx, "enable", "--now", unit.name); err != nil {
			return err
		}
		if unit.service == "" {
			if err := waitForCore(ctx); err != nil {
				return err
			}
		}
		started = append(started, unit.name)
	}
	if len(started) == 0 {
		return u.client(ctx, cmd)
	}
	return show(cmd, map[string]any{"started": started}, func(w io.Writer) { fmt.Fprintln(w, "this machine is part of the grid") })
}

// client sets up a machine without services: it only has to trust the core.
func (u *upRequest) client(ctx context.Context, cmd *cobra.Command) error {
	if u.core == "" {
		return xos.Errorf(xos.NotFound, "no service of XtreemOS is installed here").WithHint("apt install xtreemos-core xtreemos-storage xtreemos-node, or xos up --join CORE --token TOKEN")
	}
	fingerprint, err := machine.Token(u.token).Fingerprint()
	if err != nil {
		return err
	}
	keys, _, err := machine.FetchTrust(ctx, u.core, fingerprint)
	if err != nil {
		return err
	}
	if err := keepTrust(u.core, keys); err != nil {
		return err
	}
	return show(cmd, map[string]any{"trusts": u.core}, func(w io.Writer) { fmt.Fprintf(w, "this client trusts the grid of %s\n", u.core) })
}

// join certifies one service of this machine and tells it where the core is.
func (u *upRequest) join(ctx context.Context, unit unit, say func(string, ...any)) error {
	core, token := u.core, u.token
	if core == "" {
		core = "localhost"
		var err error
		if token, err = localToken(ctx); err != nil {
			return err
		}
	}
	cfg := machine.JoinConfig{Core: core, Token: machine.Token(token), Name: u.name, Service: unit.service}
	if unit.service == vom.ServiceNode {
		cfg.HostKey = hostKey
	}
	say("joining the grid of %s as %s", machine.Address(core), unit.service)
	joined, err := machine.Join(ctx, cfg)
	if err != nil {
		return err
	}
	if err := keepTrust(core, joined.Trust); err != nil {
		return err
	}
	if err := setCore(unit.config, machine.Address(core)); err != nil {
		return err
	}
	if joined.SSHHostCertificate != "" {
		if err := certifyHost(ctx, joined.SSHHostCertificate); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(unit.state, 0o700); err != nil {
		return err
	}
	if err := joined.Store(unit.state); err != nil {
		return xos.Errorf(xos.KindOf(err), "writing the credential to %s: %w", unit.state, err)
	}
	return giveTo(unit.state)
}

// giveTo makes the credential files belong to whoever owns the directory.
func giveTo(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid := owner(info)
	for _, name := range []string{"key.pem", "cert.pem"} {
		if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// certifyHost makes sshd show the host certificate, so that ssh clients of the
// grid know this machine without being asked.
func certifyHost(ctx context.Context, certificate string) error {
	if err := machine.ReplaceFile(hostCert, []byte(certificate+"\n"), 0o644); err != nil {
		return err
	}
	conf := "# Written by xos up: the grid's certificate on this machine's host key.\nHostCertificate " + hostCert + "\n"
	if err := machine.ReplaceFile(hostCertConf, []byte(conf), 0o644); err != nil {
		return err
	}
	return systemctl(ctx, "try-reload-or-restart", "ssh.service")
}

// localToken makes a join token on this machine's own core.
func localToken(ctx context.Context) (string, error) {
	c, err := machines()
	if err != nil {
		return "", err
	}
	resp, err := c.CreateJoinToken(ctx, connect.NewRequest(&xosv1.CreateJoinTokenRequest{Seconds: 60, Uses: 1}))
	if err != nil {
		return "", err
	}
	return resp.Msg.Token, nil
}

// waitForCore returns when the core answers administrators.
func waitForCore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	client := xosv1connect.NewVOsClient(rpc.UnixClient(coreSocket), rpc.UnixBase, rpc.ClientOptions()...)
	for {
		_, err := client.ListVOs(ctx, connect.NewRequest(&xosv1.ListVOsRequest{}))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return xos.Errorf(xos.Unavailable, "xos-core does not answer: %w", err).WithHint("journalctl -u xos-core")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return xos.Errorf(xos.Unavailable, "systemctl %s: %w: %s", args[0], err, out).WithHint("systemctl status %s", args[len(args)-1])
	}
	return nil
}
