package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom/machine"
)

func newTrustCommand() *cobra.Command {
	var fingerprint string
	var print bool
	c := &cobra.Command{
		Use:   "trust [CORE]",
		Short: "Trust a grid: accept its core's keys after comparing a fingerprint",
		Long: `Fetch a core's public keys and keep them, so that xos login and ssh know the
grid's machines. As root it is for the whole machine (/etc/xos), else for you
(~/.xos). The fingerprint must be compared with one from a trusted source:
give it with --fingerprint, or answer the question.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if print {
				return showTrust(cmd)
			}
			if len(args) != 1 {
				return xos.Errorf(xos.Invalid, "which core?").WithHint("xos trust CORE, or xos trust --show")
			}
			keys, got, err := machine.FetchTrust(cmd.Context(), args[0], strings.ReplaceAll(fingerprint, ":", ""))
			if err != nil {
				return err
			}
			if fingerprint == "" {
				if err := confirm(cmd, args[0], got); err != nil {
					return err
				}
			}
			if err := keepTrust(args[0], keys); err != nil {
				return err
			}
			return show(cmd, map[string]string{"core": machine.Address(args[0]), "fingerprint": got}, func(w io.Writer) {
				fmt.Fprintf(w, "this machine trusts the grid of %s\n", machine.Address(args[0]))
			})
		},
	}
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "expected SHA-256 of the root certificate, in hex")
	c.Flags().BoolVar(&print, "show", false, "show the fingerprint that is trusted here")
	return c
}

func confirm(cmd *cobra.Command, core, fingerprint string) error {
	if !newSecrets(cmd).terminal() {
		return xos.Errorf(xos.Invalid, "nobody is here to compare the fingerprint %s", fingerprint).
			WithHint("--fingerprint %s, if that is what xos trust --show prints on the core", fingerprint)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "The root of %s has the fingerprint\n  %s\nIs that what «xos trust --show» prints on the core? [yes/no] ", machine.Address(core), fingerprint)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return xos.Errorf(xos.Permission, "not trusted")
	}
	return nil
}

// keepTrust writes keys and configuration, for the machine or for the user.
func keepTrust(core string, keys *xosv1.TrustResponse) error {
	config, dir := clientConfig, machine.TrustDir
	if os.Geteuid() != 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		config, dir = filepath.Join(home, ".xos", "client.toml"), filepath.Join(home, ".xos", "trust")
	}
	if err := machine.StoreTrust(dir, keys); err != nil {
		return xos.Errorf(xos.KindOf(err), "writing %s: %w", dir, err)
	}
	text, err := toml.Marshal(clientSettings{Core: machine.Address(core)})
	if err != nil {
		return err
	}
	return machine.ReplaceFile(config, text, 0o644)
}

func showTrust(cmd *cobra.Command) error {
	t, err := findTarget("")
	if err != nil {
		return err
	}
	var prints []string
	for _, r := range t.roots {
		prints = append(prints, machine.Fingerprint(r.Raw))
	}
	return show(cmd, map[string]any{"core": t.core, "fingerprints": prints}, func(w io.Writer) {
		for _, p := range prints {
			fmt.Fprintln(w, p)
		}
	})
}
