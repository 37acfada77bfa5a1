package credential_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// shake does one handshake and gives each side's error.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	s, c := net.Pipe()
	deadline := time.Now().Add(5 * time.Second)
	s.SetDeadline(deadline)
	c.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(s, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		s.Close()
		done <- err
	}()
	conn := tls.Client(c, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1)) // TLS 1.3: a refusal arrives after the handshake
	}
	c.Close()
	return <-done, clientErr
}

func TestTLS(t *testing.T) {
	a, foreign := credtest.New(t), credtest.New(t)
	v := a.Verifier()
	core, node := a.Machine("core", vom.ServiceCore), a.Machine("node1", vom.ServiceNode)
	revoked := a.X509User("bob@physics", credtest.Issued(time.Now().Add(-time.Minute), time.Hour))
	a.Revoke(vom.Revocation{User: "bob", Before: time.Now().Add(-time.Second * 30)})
	for _, tt := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
	}{
		{"mutual", v.ServerTLS(credtest.Show(core), true), v.ClientTLS(credtest.Show(node), vom.ServiceCore), true},
		{"user", v.ServerTLS(credtest.Show(core), true), v.ClientTLS(credtest.Show(a.X509User("alice@physics")), vom.ServiceCore), true},
		{"no certificate, none required", v.ServerTLS(credtest.Show(core), false), v.ClientTLS(nil, vom.ServiceCore), true},
		{"no certificate, but required", v.ServerTLS(credtest.Show(core), true), v.ClientTLS(nil, vom.ServiceCore), false},
		{"foreign, none required", v.ServerTLS(credtest.Show(core), false), v.ClientTLS(credtest.Show(foreign.Machine("node1", vom.ServiceNode)), vom.ServiceCore), false},
		{"revoked", v.ServerTLS(credtest.Show(core), true), v.ClientTLS(credtest.Show(revoked), vom.ServiceCore), false},
		{"wrong service", v.ServerTLS(credtest.Show(node), true), v.ClientTLS(credtest.Show(node), vom.ServiceCore), false},
		{"user as server", v.ServerTLS(credtest.Show(a.X509User("alice@physics")), true), v.ClientTLS(credtest.Show(node), vom.ServiceCore), false},
		{"foreign server", v.ServerTLS(credtest.Show(foreign.Machine("core", vom.ServiceCore)), true), v.ClientTLS(credtest.Show(node), vom.ServiceCore), false},
		{"this node", v.ServerTLS(credtest.Show(node), true), v.ClientTLSTo(credtest.Show(node), vom.ServiceNode, "node1"), true},
		{"not that node", v.ServerTLS(credtest.Show(node), true), v.ClientTLSTo(credtest.Show(node), vom.ServiceNode, "node2"), false},
	} {
		serverErr, clientErr := shake(t, tt.server, tt.client)
		if ok := serverErr == nil && clientErr == nil; ok != tt.ok {
			t.Errorf("%s: server %v, client %v", tt.name, serverErr, clientErr)
		}
	}
}
