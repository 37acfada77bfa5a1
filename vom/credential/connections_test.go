package credential_test

import (
	"crypto"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// echo serves bytes back on watched connections until the test ends.
func echo(t *testing.T, c *credential.Connections, cfg *tls.Config) string {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, cfg := c.Watch(raw, cfg)
	l = tls.NewListener(l, cfg)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); io.Copy(conn, conn) }()
		}
	}()
	return raw.Addr().String()
}

func dial(t *testing.T, at string, cfg *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", at, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if !alive(conn) {
		t.Fatal("the connection does not serve")
	}
	return conn
}

func alive(c *tls.Conn) bool {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte{'x'}); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// Open connections end with what they were opened with, others stay.
func TestOpenConnectionsEnd(t *testing.T) {
	a := credtest.New(t)
	v := a.Verifier()
	core := credtest.Show(a.Machine("core", vom.ServiceCore))
	conns, files := v.Connections(), v.RunningConnections()
	strict := echo(t, conns, v.ServerTLS(core, true))
	lax := v.ServerTLS(core, false)
	lax.VerifyConnection = nil
	open := echo(t, conns, lax)
	store := echo(t, files, v.RunningServerTLS(core))

	issued := credtest.Issued(time.Now().Add(-time.Second), time.Hour)
	as := func(c tls.Certificate) *tls.Config { return v.ClientTLS(credtest.Show(c), vom.ServiceCore) }
	alice := as(a.X509User("alice@physics", issued))
	heldByNode := as(a.Delegated("alice@physics", "node1", issued))
	key := a.X509User("dora@physics")
	was := map[string]*tls.Conn{
		"alice": dial(t, strict, alice), "alice at the core": dial(t, open, alice), "held for alice": dial(t, strict, heldByNode), "alice's files": dial(t, store, heldByNode),
		"bob": dial(t, strict, as(a.X509User("bob@physics"))), "nobody": dial(t, open, v.ClientTLS(nil, vom.ServiceCore)),
		"node1": dial(t, strict, as(a.Machine("node1", vom.ServiceNode))), "node2": dial(t, strict, as(a.Machine("node2", vom.ServiceNode))),
		"dora": dial(t, strict, as(key)), "eve": dial(t, open, as(a.X509User("eve@physics"))),
	}
	check := func(what string, gone ...string) {
		t.Helper()
		conns.Recheck()
		files.Recheck()
		for _, name := range gone {
			for end := time.Now().Add(5 * time.Second); alive(was[name]); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s: %s is still connected", what, name)
				}
			}
			delete(was, name)
		}
		for name, c := range was {
			if !alive(c) {
				t.Errorf("%s: %s was cut off", what, name)
			}
		}
	}
	check("nothing happened")
	a.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Fate: vom.FateFinish, Grace: time.Now().Add(time.Hour)})
	check("alice may finish", "alice", "alice at the core", "held for alice")
	a.Change(func(b *vom.Bundle) { b.Revocations[0].Grace = time.Now() })
	check("alice's time is over", "alice's files")
	a.Revoke(vom.Revocation{Node: "node1", Before: time.Now()})
	check("node1 was removed", "node1")
	fingerprint := credential.Fingerprint(key.PrivateKey.(crypto.Signer).Public())
	a.Change(func(b *vom.Bundle) {
		b.Bans = []vom.Ban{{Kind: vom.BanKey, Subject: fingerprint}, {Kind: vom.BanUser, Subject: "eve"}}
	})
	check("bans", "dora", "eve")
	a.Change(func(b *vom.Bundle) { b.Issued = time.Now().Add(-48 * time.Hour) })
	check("without news")
	// Who comes in refused may do what the handler lets her; she is not cut off.
	a.Change(func(b *vom.Bundle) { b.Issued = time.Now() })
	was["alice, who asks why"] = dial(t, open, alice)
	check("asking")
}
