package nats_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/infra/bus/bustest"
	"github.com/xtreemos/xos/infra/bus/natsd"
)

const patience = 15 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// inbox subscribes and collects.
func inbox(t *testing.T, c bus.Conn, subject string) <-chan bus.Message {
	t.Helper()
	ch := make(chan bus.Message, 64)
	if _, err := c.Subscribe(subject, func(_ context.Context, m bus.Message) { ch <- m }); err != nil {
		t.Fatal(err)
	}
	return ch
}

func receive(t *testing.T, ch <-chan bus.Message) bus.Message {
	t.Helper()
	select {
	case m := <-ch:
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
		return bus.Message{}
	}
}

func publish(t *testing.T, c bus.Conn, subject, data string) {
	t.Helper()
	if err := c.Publish(deadline(t), subject, []byte(data)); err != nil {
		t.Fatalf("Publish %s: %v", subject, err)
	}
}

// answer replies to requests with the own name.
func answer(t *testing.T, c bus.Conn, subject, name string) {
	t.Helper()
	if _, err := c.Subscribe(subject, func(_ context.Context, m bus.Message) {
		if err := m.Respond(fmt.Appendf(nil, "%s to %s: %s", name, m.From, m.Data)); err != nil {
			t.Errorf("Respond: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPublish(t *testing.T) {
	b := bustest.New(t)
	alice, bob := b.Connect("alice.lab"), b.Connect("bob")
	one, rest, other := inbox(t, bob, "job.*.state"), inbox(t, bob, "job.>"), inbox(t, bob, "jobs")
	publish(t, alice, "job.7.state", "done")
	for _, ch := range []<-chan bus.Message{one, rest} {
		m := receive(t, ch)
		if m.Subject != "job.7.state" || string(m.Data) != "done" || m.From != "alice.lab" || m.Respond != nil {
			t.Errorf("got %+v", m)
		}
	}
	publish(t, alice, "job.7.x.y", "")
	if m := receive(t, rest); m.Subject != "job.7.x.y" {
		t.Errorf("got %+v", m)
	}
	publish(t, alice, "jobs", "end")
	receive(t, other)
	if len(one)+len(rest) > 0 {
		t.Error("a message came to a subject it was not sent to")
	}
}

func TestBadInput(t *testing.T) {
	b := bustest.New(t)
	c := b.Connect("alice")
	for _, s := range []string{"", ".", "a..b", "a.", ".a", "a b", "a.\n", "a\x00", "ä", "a*", string(make([]byte, 1000)), "*", "a.>"} {
		if err := c.Publish(deadline(t), s, nil); !xos.Is(err, xos.Invalid) {
			t.Errorf("Publish %q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a.>.b", "a*", "a b", "a..>"} {
		if _, err := c.Subscribe(s, func(context.Context, bus.Message) {}); !xos.Is(err, xos.Invalid) {
			t.Errorf("Subscribe %q: %v", s, err)
		}
	}
	if err := c.Publish(deadline(t), "big", make([]byte, 2<<20)); !xos.Is(err, xos.TooLarge) {
		t.Errorf("2 MiB: %v", err)
	}
	for name, cfg := range map[string]natsd.Config{
		"no TLS":        {Listen: "127.0.0.1:0"},
		"no client TLS": {Listen: "127.0.0.1:0", TLS: &tls.Config{}, Authorize: nil},
	} {
		if _, err := natsd.Start(cfg); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequest(t *testing.T) {
	b := bustest.New(t)
	alice, bob := b.Connect("alice"), b.Connect("bob")
	if _, err := alice.Request(deadline(t), "echo", nil); !xos.Is(err, xos.Unavailable) {
		t.Errorf("with nobody there: %v", err)
	}
	answer(t, bob, "echo", "bob")
	m, err := alice.Request(deadline(t), "echo", []byte("hello"))
	if err != nil || string(m.Data) != "bob to alice: hello" || m.From != "bob" {
		t.Errorf("got %+v, %v", m, err)
	}
	inbox(t, bob, "mute")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := alice.Request(ctx, "mute", nil); !xos.Is(err, xos.Unavailable) {
		t.Errorf("with no answer: %v", err)
	}
}

func TestGather(t *testing.T) {
	b := bustest.New(t)
	asker := b.Connect("asker")
	if got, err := asker.Gather(deadline(t), "query", nil, 5, patience); err != nil || len(got) != 0 {
		t.Errorf("with nobody there: %v, %v", got, err)
	}
	var want []string
	for i := range 5 {
		name := fmt.Sprintf("node%d", i)
		want = append(want, name)
		answer(t, b.Connect(name), "query", name)
	}
	from := func(ms []bus.Message) (names []string) {
		for _, m := range ms {
			names = append(names, m.From)
		}
		slices.Sort(names)
		return names
	}
	got, err := asker.Gather(deadline(t), "query", nil, 5, patience)
	if d := cmp.Diff(want, from(got)); d != "" || err != nil {
		t.Errorf("all: %v (-want +got):\n%s", err, d)
	}
	if got, err := asker.Gather(deadline(t), "query", nil, 2, patience); len(got) != 2 || err != nil {
		t.Errorf("the first two: %v, %v", from(got), err)
	}
	if got, err := asker.Gather(deadline(t), "query", nil, 100, 200*time.Millisecond); len(got) != 5 || err != nil {
		t.Errorf("more than there are: %v, %v", from(got), err)
	}
}

func TestCancelAndClose(t *testing.T) {
	b := bustest.New(t)
	alice, bob := b.Connect("alice"), b.Connect("bob")
	var calls atomic.Int32
	cancel, err := bob.Subscribe("a", func(context.Context, bus.Message) { calls.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	all := inbox(t, bob, ">")
	publish(t, alice, "a", "")
	receive(t, all)
	eventually(t, "the handler runs", func() bool { return calls.Load() == 1 })
	for range 2 {
		if err := cancel(); err != nil {
			t.Errorf("cancel: %v", err)
		}
	}
	publish(t, alice, "a", "")
	receive(t, all)
	if n := calls.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
	// Close ends a handler's context and waits for it.
	running, ended := make(chan struct{}), atomic.Bool{}
	if _, err := bob.Subscribe("wait", func(ctx context.Context, _ bus.Message) {
		close(running)
		<-ctx.Done()
		ended.Store(true)
	}); err != nil {
		t.Fatal(err)
	}
	publish(t, alice, "wait", "")
	<-running
	if err := bob.Close(); err != nil || !ended.Load() {
		t.Errorf("Close: %v; the handler has ended: %v", err, ended.Load())
	}
	if err := bob.Publish(deadline(t), "a", nil); !xos.Is(err, xos.Unavailable) {
		t.Errorf("Publish after Close: %v", err)
	}
}

// TestReconnect: the server goes away and comes back at the same address;
// subscriptions and requests work again without anybody's doing.
func TestReconnect(t *testing.T) {
	b := bustest.New(t)
	alice, bob := b.Connect("alice"), b.Connect("bob")
	got := inbox(t, bob, "news")
	answer(t, bob, "echo", "bob")
	publish(t, alice, "news", "before")
	receive(t, got)
	drain(bob.Changed())

	b.Stop()
	select {
	case <-bob.Changed():
	case <-time.After(patience):
		t.Fatal("Changed does not tell of the loss")
	}
	eventually(t, "both know it", func() bool { return !alice.Connected() && !bob.Connected() })
	if err := alice.Publish(deadline(t), "news", []byte("lost")); !xos.Is(err, xos.Unavailable) {
		t.Errorf("Publish without a connection: %v", err)
	}
	b.Start()
	eventually(t, "both are back", func() bool { return alice.Connected() && bob.Connected() })
	select {
	case <-bob.Changed():
	case <-time.After(patience):
		t.Error("Changed does not tell of the return")
	}
	eventually(t, "a request is answered", func() bool {
		m, err := alice.Request(deadline(t), "echo", nil)
		return err == nil && m.From == "bob"
	})
	publish(t, alice, "news", "after")
	if m := receive(t, got); string(m.Data) != "after" {
		t.Errorf("got %q", m.Data)
	}
}

// TestConnectBeforeServer: who starts before the bus gets there later.
func TestConnectBeforeServer(t *testing.T) {
	b := bustest.New(t)
	b.Stop()
	alice := b.Connect("alice")
	if alice.Connected() {
		t.Fatal("connected to nothing")
	}
	got := inbox(t, alice, "a")
	b.Start()
	eventually(t, "connected", alice.Connected)
	eventually(t, "messages arrive", func() bool { return alice.Publish(deadline(t), "a", nil) == nil && len(got) > 0 })
}

func drain(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}
