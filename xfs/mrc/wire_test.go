package mrc_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// dial gives a volume as the bearer of a certificate reaches it.
func dial(t testing.TB, s *xfstest.Services, cert tls.Certificate, volume xos.VolumeID) xfs.MRC {
	cfg := s.Authority.Verifier().ClientTLS(credtest.Show(cert), vom.ServiceCore)
	address := s.Remote("node1").MRC
	c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	})
	t.Cleanup(func() { c.Close() })
	return frame.NewMRC(c, volume)
}

func TestContractOverTheWire(t *testing.T) {
	s := xfstest.Start(t, 0)
	cert := s.Authority.Delegated("alice@physics", "node1")
	var n atomic.Int32
	xfstest.RunMRC(t, func(t *testing.T) xfs.MRC {
		name := xos.VolumeID(fmt.Sprintf("volume-%d", n.Add(1)))
		if err := s.Dir.CreateVolume(t.Context(), name, xos.Account{User: "alice", VO: "physics"}); err != nil {
			t.Fatal(err)
		}
		return dial(t, s, cert, name)
	})
}

func TestWhoMayConnect(t *testing.T) {
	s := xfstest.Start(t, 0)
	a := s.Authority
	revoked := a.Delegated("alice@physics", "node3")
	ask := func(cert tls.Certificate, volume xos.VolumeID) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := dial(t, s, cert, volume).Getattr(ctx, xfs.RootInode)
		return err
	}
	if err := ask(revoked, xfstest.Volume); err != nil {
		t.Fatal(err)
	}
	a.Revoke(vom.Revocation{User: "alice", Serial: revoked.Leaf.SerialNumber.String(), Before: time.Now(), Reason: "logged out"})
	for _, c := range []struct {
		name   string
		cert   tls.Certificate
		volume xos.VolumeID
		want   xos.Kind
	}{
		{"another's volume", a.Delegated("bob@physics", "node1"), xfstest.Volume, xos.NotFound},
		{"the same name in another VO", a.Delegated("alice@chemistry", "node1"), xfstest.Volume, xos.NotFound},
		{"no such volume", a.Delegated("alice@physics", "node1"), "none", xos.NotFound},
		{"her own certificate", a.X509User("alice@physics"), xfstest.Volume, xos.Permission},
		{"a machine's", a.Machine("node1", vom.ServiceNode), xfstest.Volume, xos.Invalid},
	} {
		if err := ask(c.cert, c.volume); err == nil || xos.KindOf(err) != c.want {
			t.Errorf("%s: %v, want kind %q", c.name, err, c.want)
		}
	}
	for name, cert := range map[string]tls.Certificate{
		"revoked": revoked,
		"expired": a.Delegated("alice@physics", "node1", credtest.Issued(time.Now().Add(-2*time.Hour), time.Hour)),
		"foreign": credtest.New(t).Delegated("alice@physics", "node1"),
	} {
		if err := ask(cert, xfstest.Volume); err == nil {
			t.Errorf("a %s certificate is served", name)
		}
	}
}

// TestRevocationMeetsConnections: a connection that is open already serves a
// revoked user no longer.
func TestRevocationMeetsConnections(t *testing.T) {
	s := xfstest.Start(t, 0)
	m := dial(t, s, s.Authority.Delegated("alice@physics", "node1"), xfstest.Volume)
	if _, err := m.Getattr(t.Context(), xfs.RootInode); err != nil {
		t.Fatal(err)
	}
	s.Authority.Revoke(vom.Revocation{User: "alice", Before: time.Now(), Reason: "left"})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := m.Getattr(t.Context(), xfs.RootInode)
		if xos.Is(err, xos.Permission) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still served: %v", err)
		}
	}
}
