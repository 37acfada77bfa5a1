package cda_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/vomtest"
)

// TestX5CPrincipals: an authority that signs OpenSSH certificates for who shows
// an X.509 one may let the client choose its principals, and so be anybody. Here
// the request's own names count for nothing, whatever the way: the principal is
// the account that was proved, and the identity too.
func TestX5CPrincipals(t *testing.T) {
	g := vomtest.Start(t)
	token := g.Member("alice@physics")
	g.Member("bob@physics")
	node := g.Join("node1", vom.ServiceNode)
	greedy := func(r *x509.CertificateRequest) {
		r.Subject = pkix.Name{CommonName: "bob@physics", Organization: []string{"root"}}
		r.DNSNames = []string{"root", "bob@physics", "node1"}
		r.EmailAddresses = []string{"root@localhost", "bob@physics"}
		r.URIs = []*url.URL{{Scheme: "xos", Host: "physics", Path: "/bob"}}
		// Basic constraints of an authority, and the own extension's arc.
		r.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}
	}
	hers := func(how string, chain [][]byte, line string) {
		t.Helper()
		leaf := vomtest.Parse(t, chain)
		id, err := credential.FromX509(leaf[0])
		if err != nil || id.Account != (xos.Account{User: "alice", VO: "physics"}) {
			t.Errorf("%s: she is certified as %v, %v", how, id.Account, err)
		}
		if c := leaf[0]; c.IsCA || len(c.DNSNames)+len(c.EmailAddresses) > 0 || slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.Path == "/bob" }) || c.Subject.CommonName == "bob@physics" {
			t.Errorf("%s: the certificate took over %v %v %v %v, authority %v", how, c.Subject, c.DNSNames, c.EmailAddresses, c.URIs, c.IsCA)
		}
		if line == "" {
			return
		}
		cert, err := credential.ParseSSH([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cert.ValidPrincipals, []string{"alice@physics"}) || cert.CertType != ssh.UserCert {
			t.Errorf("%s: principals %q", how, cert.ValidPrincipals)
		}
	}
	csr, _ := vomtest.Request(t, greedy)
	issued, err := g.CDA.Issue(g.Stranger(), connect.NewRequest(&xosv1.IssueRequest{Account: "alice@physics", Token: token, Csr: csr}))
	if err != nil {
		t.Fatal(err)
	}
	hers("by token", issued.Msg.X509Chain, issued.Msg.SshCertificate)
	bearer := func(chain [][]byte) context.Context { return g.As(vomtest.Parse(t, chain)) }
	renewed, err := g.CDA.Renew(bearer(issued.Msg.X509Chain), connect.NewRequest(&xosv1.RenewRequest{Csr: csr}))
	if err != nil {
		t.Fatal(err)
	}
	hers("by X.509 certificate", renewed.Msg.X509Chain, renewed.Msg.SshCertificate)
	delegated, err := g.CDA.Delegate(g.As(credtest.Chain(t, node)), connect.NewRequest(&xosv1.DelegateRequest{Csr: csr, SshCertificate: mustParse(t, issued.Msg.SshCertificate).Marshal()}))
	if err != nil {
		t.Fatal(err)
	}
	hers("by OpenSSH certificate", delegated.Msg.X509Chain, "")
}

func mustParse(t *testing.T, line string) *ssh.Certificate {
	t.Helper()
	c, err := credential.ParseSSH([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
