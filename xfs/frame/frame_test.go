package frame_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/frame"
)

const opEcho, opWait, opFail frame.Op = 0x80, 0x81, 0x82

var quiet = slog.New(slog.DiscardHandler)

// serve starts a server on the loopback and gives its address.
func serve(t *testing.T, s *frame.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dialer(addr string) frame.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

func client(t *testing.T, dial frame.Dial) *frame.Client {
	c := frame.NewClient(dial)
	t.Cleanup(func() { c.Close() })
	return c
}

func echo(_ context.Context, r *frame.Request) (frame.Reply, error) {
	return frame.Reply{Head: bytes.Clone(r.Head), Bulk: bytes.Clone(r.Bulk)}, nil
}

func wait(ctx context.Context, _ *frame.Request) (frame.Reply, error) {
	<-ctx.Done()
	return frame.Reply{}, ctx.Err()
}

func TestManyInFlight(t *testing.T) {
	c := client(t, dialer(serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo}))))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			head := fmt.Appendf(nil, "request %d", i)
			bulk := bytes.Repeat([]byte{byte(i)}, i*5000)
			into := make([]byte, len(bulk))
			n, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: head, Bulk: bulk, Into: into}, func(b []byte) error {
				if !bytes.Equal(b, head) {
					return fmt.Errorf("got %q", b)
				}
				return nil
			})
			if err != nil || !bytes.Equal(into[:n], bulk) {
				t.Errorf("request %d: %v, %d bytes", i, err, n)
			}
		})
	}
	wg.Wait()
}

func ignore([]byte) error { return nil }

func TestDeadlineReachesServer(t *testing.T) {
	ended := make(chan struct{}, 2)
	c := client(t, dialer(serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{
		opEcho: echo,
		opWait: func(ctx context.Context, r *frame.Request) (frame.Reply, error) {
			defer func() { ended <- struct{}{} }()
			return wait(ctx, r)
		},
	}))))
	for name, end := range map[string]func() (context.Context, context.CancelFunc){
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 50*time.Millisecond)
		},
		"cancel": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		ctx, cancel := end()
		_, err := c.Do(ctx, frame.Call{Op: opWait}, ignore)
		cancel()
		if !xos.Is(err, xos.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the server still works on it", name)
		}
	}
	// The connection is still good, and the late replies disturbed nothing.
	if _, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err != nil {
		t.Error(err)
	}
}

func TestBreakFailsWhatIsInFlightThenReconnects(t *testing.T) {
	arrived := make(chan struct{}, 10)
	addr := serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{
		opEcho: echo,
		opWait: func(ctx context.Context, r *frame.Request) (frame.Reply, error) {
			arrived <- struct{}{}
			return wait(ctx, r)
		},
	}))
	var last atomic.Pointer[net.Conn]
	var dials atomic.Int32
	c := client(t, func(ctx context.Context) (net.Conn, error) {
		conn, err := dialer(addr)(ctx)
		dials.Add(1)
		last.Store(&conn)
		return conn, err
	})
	errs := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := c.Do(t.Context(), frame.Call{Op: opWait}, ignore)
			errs <- err
		}()
	}
	for range 10 {
		<-arrived
	}
	(*last.Load()).Close()
	for range 10 {
		if err := <-errs; !xos.Is(err, xos.Unavailable) {
			t.Errorf("in flight: %v", err)
		}
	}
	if _, err := c.Do(t.Context(), frame.Call{Op: opEcho}, ignore); err != nil {
		t.Errorf("after reconnecting: %v", err)
	}
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials, want 2", n)
	}
}

func TestNobodyListens(t *testing.T) {
	c := client(t, dialer("127.0.0.1:1"))
	for range 3 { // the later ones wait for the backoff, and do not spin
		if _, err := c.Do(t.Context(), frame.Call{Op: opEcho}, ignore); !xos.Is(err, xos.Unavailable) {
			t.Errorf("got %v", err)
		}
	}
	c.Close()
	if _, err := c.Do(t.Context(), frame.Call{Op: opEcho}, ignore); !xos.Is(err, xos.Unavailable) {
		t.Errorf("closed: %v", err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	var current error
	c := client(t, dialer(serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{
		opFail: func(context.Context, *frame.Request) (frame.Reply, error) { return frame.Reply{}, current },
	}))))
	for _, want := range []error{xfs.ErrNotEmpty, xfs.ErrNotDir, xfs.ErrIsDir, xfs.ErrStale, xfs.ErrNoAttr,
		xfs.ErrTooMany, xfs.ErrNameLong, xfs.ErrCorrupt} {
		current = fmt.Errorf("while testing: %w", want)
		_, err := c.Do(t.Context(), frame.Call{Op: opFail}, ignore)
		if !errors.Is(err, want) || xos.KindOf(err) != xos.KindOf(want) {
			t.Errorf("sent %v, got %v", want, err)
		}
	}
	for k := xos.Internal; k <= xos.TooLarge; k++ {
		current = xos.Errorf(k, "about %s", "secret").WithHint("do this")
		_, err := c.Do(t.Context(), frame.Call{Op: opFail}, ignore)
		wantText := "about secret (do this)"
		if k == xos.Internal {
			wantText = "internal error of the server"
		}
		if xos.KindOf(err) != k || err.Error() != wantText {
			t.Errorf("%v: got %q of kind %v", k, err, xos.KindOf(err))
		}
	}
	if _, err := c.Do(t.Context(), frame.Call{Op: 0x99}, ignore); !xos.Is(err, xos.NotSupported) {
		t.Errorf("unknown operation: %v", err)
	}
}

func TestMalformedFramesAreCutOff(t *testing.T) {
	addr := serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo, opWait: wait}))
	frames := map[string][]byte{
		"huge":           {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"head too big":   {0, 0x20, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"head > size":    {0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"not zero":       {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0},
		"ping with data": {0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0},
		"http":           []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"id twice":       bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x81, 0, 0, 0, 0, 0, 0, 0}, 2),
	}
	for name, b := range frames {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		conn.Write(b)
		_, err = io.Copy(io.Discard, conn)
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%s: the connection stayed open", name)
		}
		conn.Close()
	}
}

func TestCapability(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(nil)
	now := time.Unix(1700000000, 0)
	good := xfs.Capability{File: xfs.FileID{Volume: "v", Inode: 5}, Rights: xfs.MayRead, Node: "node1",
		Account: "alice@physics", Epoch: 1, Expires: now.Add(time.Minute).UTC()}
	if err := frame.Sign(&good, private); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*xfs.Capability)
		at     time.Duration
		want   xos.Kind
	}{
		"rights":    {func(c *xfs.Capability) { c.Rights |= xfs.MayWrite }, 0, xos.Permission},
		"file":      {func(c *xfs.Capability) { c.File.Inode++ }, 0, xos.Permission},
		"volume":    {func(c *xfs.Capability) { c.File.Volume = "w" }, 0, xos.Permission},
		"node":      {func(c *xfs.Capability) { c.Node = "node2" }, 0, xos.Permission},
		"account":   {func(c *xfs.Capability) { c.Account = "bob@physics" }, 0, xos.Permission},
		"epoch":     {func(c *xfs.Capability) { c.Epoch++ }, 0, xos.Permission},
		"prolonged": {func(c *xfs.Capability) { c.Expires = c.Expires.Add(1) }, 0, xos.Permission},
		"unsigned":  {func(c *xfs.Capability) { c.Signature = nil }, 0, xos.Permission},
		"late":      {func(*xfs.Capability) {}, time.Minute, xos.Expired},
	} {
		c := good
		tc.change(&c)
		if err := frame.Verify(&c, public, now.Add(tc.at)); !xos.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if err := frame.Verify(&good, public, now); err != nil {
		t.Error(err)
	}
	if err := frame.Verify(&good, nil, now); !xos.Is(err, xos.Unavailable) {
		t.Errorf("without key: %v", err)
	}
	b, err := frame.EncodeCapability(&good)
	if err != nil {
		t.Fatal(err)
	}
	again, err := frame.DecodeCapability(b)
	if err != nil || cmp.Diff(good, again) != "" {
		t.Errorf("%v %s", err, cmp.Diff(good, again))
	}
}
