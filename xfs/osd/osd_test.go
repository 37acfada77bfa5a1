package osd_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/osd"
	"github.com/xtreemos/xos/xfs/xfstest"
)

func openStore(t testing.TB, dir string, capacity int64) *osd.Store {
	t.Helper()
	s, err := osd.Open(dir, capacity)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// server is an OSD on loopback TLS.
type server struct {
	t         testing.TB
	authority *credtest.Authority
	key       ed25519.PrivateKey
	address   string
	store     *osd.Store
}

func serve(t testing.TB, capacity int64) *server {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, authority: credtest.New(t), key: key, store: openStore(t, t.TempDir(), capacity)}
	service := osd.NewService(s.store, time.Now, slog.New(slog.DiscardHandler))
	service.SetKey(pub)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	v := s.authority.Verifier()
	cfg := v.ServerTLS(credtest.Show(s.authority.Machine("storage1", vom.ServiceStorage)), true)
	go func() { done <- service.Serve(ctx, tls.NewListener(l, cfg), v) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is the OSD as the bearer of a certificate reaches it.
func (s *server) client(cert tls.Certificate) xfs.OSD {
	cfg := s.authority.Verifier().ClientTLS(credtest.Show(cert), vom.ServiceStorage)
	c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", s.address)
	})
	s.t.Cleanup(func() { c.Close() })
	return frame.NewOSD(c)
}

func (s *server) grant(node xos.NodeID, life time.Duration) xfstest.Grant {
	return func(ino xfs.Inode, rights xfs.Rights) xfs.Capability {
		c := xfs.Capability{File: xfs.FileID{Volume: "home", Inode: ino}, Rights: rights, Node: node,
			Account: "alice@physics", Epoch: 1, Expires: time.Now().Add(life).Truncate(time.Second)}
		if err := frame.Sign(&c, s.key); err != nil {
			s.t.Error(err)
		}
		return c
	}
}

func TestContract(t *testing.T) {
	xfstest.RunOSD(t, func(t *testing.T) (xfs.OSD, xfstest.Grant) {
		s := serve(t, 0)
		return s.client(s.authority.Delegated("alice@physics", "node1")), s.grant("node1", time.Minute)
	})
}

func TestWhoMayConnect(t *testing.T) {
	s := serve(t, 0)
	read := func(cert tls.Certificate, grant xfstest.Grant) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _, err := s.client(cert).Read(ctx, grant(1, xfs.MayRead), 0, 0, 1)
		return err
	}
	good := s.grant("node1", time.Minute)
	revoked := s.authority.Delegated("bob@physics", "node1")
	s.authority.Revoke(vom.Revocation{User: "bob", Before: time.Now(), Reason: "left"})
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		grant xfstest.Grant
		want  xos.Kind
	}{
		{"another node", s.authority.Delegated("alice@physics", "node2"), good, xos.Permission},
		{"the user's own certificate", s.authority.X509User("alice@physics"), good, xos.Permission},
		{"a node", s.authority.Machine("node1", vom.ServiceNode), good, xos.Permission},
		{"an old capability", s.authority.Delegated("alice@physics", "node1"), s.grant("node1", -time.Minute), xos.Expired},
	} {
		if err := read(c.cert, c.grant); !xos.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for name, cert := range map[string]tls.Certificate{
		"revoked":   revoked,
		"expired":   s.authority.Delegated("alice@physics", "node1", credtest.Issued(time.Now().Add(-2*time.Hour), time.Hour)),
		"a foreign": credtest.New(t).Delegated("alice@physics", "node1"),
	} {
		if err := read(cert, good); err == nil {
			t.Errorf("%s certificate reads", name)
		}
	}
	if err := read(s.authority.Delegated("alice@physics", "node1"), good); err != nil {
		t.Errorf("the right one: %v", err)
	}
	if err := read(s.authority.Machine("core", vom.ServiceCore), s.grant("core", time.Minute)); err != nil {
		t.Errorf("the core: %v", err)
	}
}

// TestRevocationMeetsConnections: who is revoked loses a connection that is
// open already.
func TestRevocationMeetsConnections(t *testing.T) {
	s := serve(t, 0)
	o, grant := s.client(s.authority.Delegated("alice@physics", "node1")), s.grant("node1", time.Minute)
	if _, _, err := o.Read(t.Context(), grant(1, xfs.MayRead), 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	s.authority.Revoke(vom.Revocation{User: "alice", Before: time.Now(), Reason: "left"})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := o.Read(t.Context(), grant(1, xfs.MayRead), 0, 0, 1)
		if xos.Is(err, xos.Permission) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still served: %v", err)
		}
	}
}
