package credential

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Certificate gives the certificate to show; it is called at each handshake,
// so that a renewed one is used at once.
type Certificate = func() (*tls.Certificate, error)

// ServerTLS is a server's configuration: TLS 1.3, cert shown. A client's
// certificate, demanded if required, must verify as a user's or a machine's;
// the handler then learns whose by X509 or Machine on the peer's chain, for
// each request anew where connections live long.
func (v *Verifier) ServerTLS(cert Certificate, required bool) *tls.Config {
	c := base()
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert() }
	c.ClientAuth = tls.RequestClientCert
	if required {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	c.SessionTicketsDisabled = true // a resumed session would outlive a revocation
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			if required {
				return xos.Errorf(xos.Permission, "no certificate was shown")
			}
			return nil
		}
		return v.peer(s.PeerCertificates)
	}
	return c
}

func (v *Verifier) peer(chain []*x509.Certificate) error {
	if _, err := MachineFromX509(chain[0]); err == nil {
		_, err := v.Machine(chain)
		return err
	}
	_, err := v.X509(chain)
	return err
}

// ClientTLS is a client's configuration: TLS 1.3, cert shown if not nil. The
// server must be a machine of this grid with the service wanted; addresses and
// DNS names prove nothing and are not compared.
func (v *Verifier) ClientTLS(cert Certificate, want vom.Service) *tls.Config {
	return v.ClientTLSTo(cert, want, "")
}

// ClientTLSTo is ClientTLS to one machine.
func (v *Verifier) ClientTLSTo(cert Certificate, want vom.Service, node xos.NodeID) *tls.Config {
	c := base()
	c.InsecureSkipVerify = true // VerifyConnection does it, by service and name
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert() }
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		m, err := v.Machine(s.PeerCertificates)
		if err != nil {
			return err
		}
		if m.Service != want || node != "" && m.Node != node {
			return xos.Errorf(xos.Permission, "the server is %q, service %q; wanted %q, service %q", m.Node, m.Service, node, want)
		}
		return nil
	}
	return c
}

func base() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS13} }
