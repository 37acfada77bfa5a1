package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/machine"
)

// maxCRL bounds what a core may send.
const maxCRL = 64 << 20

func newCACommand() *cobra.Command {
	c := &cobra.Command{Use: "ca", Short: "The grid's certification authority, for other tools"}
	c.AddCommand(newCRLCommand(), newIssuerCommand())
	return c
}

func newCRLCommand() *cobra.Command {
	var core, output string
	var der bool
	c := &cobra.Command{
		Use:   "crl",
		Short: "Get the certificate revocation list (CRL), verified",
		Long: `Get the list of certificates that are revoked though they have not expired, signed
by the grid's authority (RFC 5280), for tools that are not the grid's own; those
need none. A new list may be had at any time, and is needed within 24 hours:

  openssl verify -crl_check -CAfile grid.pem -CRLfile crl.pem CERTIFICATE

where grid.pem is what "xos ca issuer" prints. Without xos:
curl --cacert /etc/xos/trust/roots.pem https://CORE:7443/ca/crl.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(core)
			if err != nil {
				return err
			}
			issuer, err := t.issuer(cmd.Context())
			if err != nil {
				return err
			}
			data, err := t.get(cmd.Context(), "/ca/crl.der")
			if err != nil {
				return err
			}
			list, err := x509.ParseRevocationList(data)
			if err == nil {
				err = list.CheckSignatureFrom(issuer)
			}
			if err != nil {
				return xos.Errorf(xos.Invalid, "the revocation list of %s does not verify: %w", t.core, err)
			}
			if !time.Now().Before(list.NextUpdate) {
				return xos.Errorf(xos.Expired, "the revocation list of %s is of %s", t.core, list.ThisUpdate.Format(time.RFC3339)).WithHint("is this machine's clock right?")
			}
			if jsonOutput(cmd) {
				return showCRL(cmd, list)
			}
			if !der {
				data = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: data})
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			// Replaced at once: a reader never sees a half of it.
			return machine.ReplaceFile(output, data, 0o644)
		},
	}
	c.Flags().StringVar(&core, "core", "", "ask this core (default: the one that is trusted)")
	c.Flags().StringVarP(&output, "output", "o", "", "write to this file, replaced at once")
	c.Flags().BoolVar(&der, "der", false, "binary in place of PEM")
	return c
}

func showCRL(cmd *cobra.Command, list *x509.RevocationList) error {
	type entry struct {
		Serial string    `json:"serial"`
		At     time.Time `json:"at"`
		Reason int       `json:"reason"`
	}
	out := struct {
		Number  string    `json:"number"`
		Made    time.Time `json:"made"`
		Next    time.Time `json:"next"`
		Revoked []entry   `json:"revoked"`
	}{list.Number.String(), list.ThisUpdate, list.NextUpdate, []entry{}}
	for _, e := range list.RevokedCertificateEntries {
		out.Revoked = append(out.Revoked, entry{e.SerialNumber.String(), e.RevocationTime, e.ReasonCode})
	}
	return show(cmd, out, func(io.Writer) {})
}

func newIssuerCommand() *cobra.Command {
	var core string
	c := &cobra.Command{
		Use:   "issuer",
		Short: "Print the roots that are trusted here, and the issuer's certificate, verified",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(core)
			if err != nil {
				return err
			}
			issuer, err := t.issuer(cmd.Context())
			if err != nil {
				return err
			}
			var out strings.Builder
			for _, c := range append(t.roots[:len(t.roots):len(t.roots)], issuer) {
				if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
					return err
				}
			}
			return show(cmd, map[string]string{"pem": out.String()}, func(w io.Writer) { fmt.Fprint(w, out.String()) })
		},
	}
	c.Flags().StringVar(&core, "core", "", "ask this core (default: the one that is trusted)")
	return c
}

// issuer gets the certificate that signs users' and machines', and checks that
// a trusted root has signed it.
func (t target) issuer(ctx context.Context) (*x509.Certificate, error) {
	data, err := t.get(ctx, "/ca/issuer.pem")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, xos.Errorf(xos.Invalid, "%s has sent no certificate", t.core)
	}
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the issuer's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	for _, r := range t.roots {
		roots.AddCert(r)
	}
	if _, err := issuer.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil || !issuer.IsCA {
		return nil, xos.Errorf(xos.Permission, "the issuer of %s is not of the grid that is trusted here: %w", t.core, err)
	}
	return issuer, nil
}

// get fetches one of the core's public files.
func (t target) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base()+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.anonymous().Do(req)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "asking %s: %w", t.core, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxCRL))
	switch {
	case err != nil:
		return nil, xos.Errorf(xos.Unavailable, "asking %s: %w", t.core, err)
	case resp.StatusCode != http.StatusOK:
		return nil, xos.Errorf(xos.Unavailable, "%s answers %s", t.core, resp.Status).WithHint("journalctl -u xos-core, there")
	}
	return data, nil
}
