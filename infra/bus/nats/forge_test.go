package nats_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/bustest"
	"github.com/xtreemos/xos/infra/bus/nats"
)

// raw connects with a plain NATS client: what an attacker with a certificate
// of her own has. Errors that the server sends are counted.
func raw(t *testing.T, b *bustest.Bus, name string) (*natsgo.Conn, *atomic.Int32) {
	t.Helper()
	refused := new(atomic.Int32)
	nc, err := natsgo.Connect("tls://"+b.Addr(), natsgo.Secure(b.ClientTLS(name)), natsgo.TLSHandshakeFirst(),
		natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) { refused.Add(1) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, refused
}

// TestForgedSender: under no subject can mallory's message come from another.
func TestForgedSender(t *testing.T) {
	b := bustest.New(t)
	alice, victim := b.Connect("alice"), b.Connect("victim")
	b.Allow("mallory", []string{">"}, []string{">"})
	got := inbox(t, victim, ">")
	publish(t, alice, "warm", "up")
	receive(t, got)
	nc, refused := raw(t, b, "mallory")
	wires := []string{"m.alice.news", "m.victim.news", "m.%61lice.news", "m.Mallory.news", "m.mallor%79.news", "news", "m.news", "$SYS.REQ.SERVER.PING", "i.victim.x.1.alice", "i.victim.x.1"}
	for _, w := range wires {
		if err := nc.Publish(w, []byte("forged")); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []string{"m.alice.news", "m.%61lice.news"} {
		// The server's own tracing must not become a way round.
		m := natsgo.NewMsg("m.mallory.trace")
		m.Header.Set("Nats-Trace-Dest", w)
		m.Header.Set("Nats-Trace-Only", "true")
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish("m.mallory.news", []byte("honest")); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, got); m.From != "mallory" || string(m.Data) != "honest" {
		t.Errorf("from %q on %q came %q", m.From, m.Subject, m.Data)
	}
	eventually(t, "each is refused", func() bool { return int(refused.Load()) >= len(wires) })
	if len(got) > 0 {
		t.Errorf("more came: %+v", <-got)
	}
}

// TestForgedReply: a reply tells who gave it, and nobody can listen to replies
// for others, nor answer in another's name.
func TestForgedReply(t *testing.T) {
	b := bustest.New(t)
	alice := b.Connect("alice")
	b.Allow("mallory", []string{">"}, []string{">"})
	nc, refused := raw(t, b, "mallory")
	for i, s := range []string{"i.>", "i.alice.>", "i.*.*.*.bob", ">", "*.>"} {
		if _, err := nc.Subscribe(s, func(m *natsgo.Msg) { t.Errorf("mallory hears %s on %s", m.Data, m.Subject) }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server refuses "+s, func() bool { _ = nc.Flush(); return int(refused.Load()) > i })
	}
	// Mallory is asked, legitimately, and answers in the name of bob first.
	if _, err := nc.Subscribe("m.*.ask", func(m *natsgo.Msg) {
		_ = nc.Publish(m.Reply+".bob", []byte("forged"))
		_ = nc.Publish(m.Reply, []byte("forged"))
		no := natsgo.NewMsg(m.Reply)
		no.Header.Set("Status", "503")
		_ = nc.PublishMsg(no)
		_ = nc.Publish(m.Reply+".mallory", []byte("own"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	m, err := alice.Request(deadline(t), "ask", nil)
	if err != nil || m.From != "mallory" || string(m.Data) != "own" {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestDeputy: a reply address of someone else is no reply address.
func TestDeputy(t *testing.T) {
	b := bustest.New(t)
	service := b.Connect("service")
	b.Allow("mallory", []string{">"}, nil)
	got := inbox(t, service, "do")
	nc, _ := raw(t, b, "mallory")
	for _, reply := range []string{"i.alice.c.1", "m.service.order", "i.mallory.c", "i.mallory.c.1.service", "x"} {
		if err := nc.PublishRequest("m.mallory.do", reply, nil); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, got); m.Respond != nil {
			t.Errorf("would answer mallory at %s", reply)
		}
	}
	if err := nc.PublishRequest("m.mallory.do", "i.mallory.c.1", nil); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, got); m.Respond == nil {
		t.Error("would not answer mallory at her own inbox")
	}
}

func TestPermissions(t *testing.T) {
	b := bustest.New(t)
	core := b.Connect("core")
	b.Allow("node1", []string{"status.node1"}, []string{"order.>"})
	node := b.ConnectAs("node1", "node1")
	orders, overheard := inbox(t, node, "order.*"), inbox(t, node, "secret")
	status := inbox(t, core, "status.>")
	publish(t, node, "status.node2", "forged")
	publish(t, node, "status.node1", "fine")
	if m := receive(t, status); m.Subject != "status.node1" {
		t.Errorf("got %+v", m)
	}
	publish(t, core, "secret", "x")
	publish(t, core, "order.go", "x")
	receive(t, orders)
	if len(overheard) > 0 {
		t.Error("heard what it may not")
	}
	t.Run("claims another name", func(t *testing.T) {
		liar := b.ConnectAs("node1", "core")
		publish(t, liar, "status.node1", "forged")
		publish(t, node, "status.node1", "fine")
		if m := receive(t, status); m.From != "node1" || string(m.Data) != "fine" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestStrangers(t *testing.T) {
	b := bustest.New(t)
	other := bustest.New(t)
	b.Allow("alice", []string{">"}, []string{">"})
	good := b.ClientTLS("alice")
	foreign := good.Clone()
	foreign.Certificates = []tls.Certificate{other.Certificate("alice")}
	none := good.Clone()
	none.Certificates = nil
	for name, o := range map[string][]natsgo.Option{
		"foreign authority":  {natsgo.Secure(foreign), natsgo.TLSHandshakeFirst()},
		"no certificate":     {natsgo.Secure(none), natsgo.TLSHandshakeFirst()},
		"not allowed":        {natsgo.Secure(b.ClientTLS("nobody")), natsgo.TLSHandshakeFirst()},
		"password instead":   {natsgo.Secure(b.ClientTLS("nobody")), natsgo.TLSHandshakeFirst(), natsgo.UserInfo("alice", "")},
		"name in a wildcard": {natsgo.Secure(b.ClientTLS("*")), natsgo.TLSHandshakeFirst()},
	} {
		if nc, err := natsgo.Connect("tls://"+b.Addr(), o...); err == nil {
			if err := nc.Flush(); err == nil {
				t.Errorf("%s: let in", name)
			}
			nc.Close()
		}
	}
	t.Run("no TLS", func(t *testing.T) {
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("CONNECT {}\r\nPUB m.alice.x 1\r\nx\r\nPING\r\n")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 64)
		for {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if n > 0 && buf[0] != 0x15 { // a TLS alert is all it may say
				t.Fatalf("the server speaks without TLS: %q", buf[:n])
			}
		}
	})
}

// TestRecheck: a ban ends the connection, and its subscriptions, at once.
func TestRecheck(t *testing.T) {
	b := bustest.New(t)
	alice, bob := b.Connect("alice"), b.Connect("bob")
	got := inbox(t, bob, "a")
	var lost atomic.Int32
	b.Server().Recheck() // nothing has changed
	if !alice.Connected() || !bob.Connected() {
		t.Fatal("a connection ended without cause")
	}
	b.Ban("bob")
	b.Server().Recheck()
	eventually(t, "bob is out", func() bool { return !bob.Connected() })
	if _, err := alice.Subscribe("a", func(context.Context, bus.Message) { lost.Add(1) }); err != nil {
		t.Fatal(err)
	}
	publish(t, alice, "a", "secret")
	eventually(t, "delivered to whom it may", func() bool { return lost.Load() == 1 })
	if len(got) > 0 || bob.Connected() {
		t.Error("bob still hears")
	}
	b.Allow("bob", []string{">"}, []string{">"})
	eventually(t, "bob is back", bob.Connected)
	b.Allow("bob", []string{"b"}, []string{"b"})
	b.Server().Recheck()
	eventually(t, "bob is back with other permissions", func() bool {
		select {
		case <-bob.Changed():
			return bob.Connected()
		default:
			return false
		}
	})
}

// TestCertificateEnds: so does the connection, without anybody's doing.
func TestCertificateEnds(t *testing.T) {
	b := bustest.New(t)
	b.Allow("alice", []string{">"}, []string{">"})
	cfg := b.ClientTLS("alice")
	cfg.Certificates = []tls.Certificate{b.CertificateUntil("alice", time.Now().Add(2*time.Second))}
	c, err := nats.Connect(deadline(t), nats.Config{Servers: []string{b.Addr()}, Name: "alice", TLS: cfg})
	if err != nil || !c.Connected() {
		t.Fatalf("connected: %v", err)
	}
	defer c.Close()
	eventually(t, "the connection ends", func() bool { return !c.Connected() })
}
