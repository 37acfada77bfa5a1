package frame_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs/frame"
)

// A client that follows an identity makes its connection anew when that
// changes; no request fails by it, not even one that is answered afterwards.
func TestFollow(t *testing.T) {
	var identity atomic.Int64
	var mu sync.Mutex
	var made []int64 // the identities that connections were made with
	release := make(chan struct{})
	s := frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo, opWait: func(context.Context, *frame.Request) (frame.Reply, error) {
		<-release
		return frame.Reply{Head: []byte("late")}, nil
	}})
	dial := dialer(serve(t, s))
	c := client(t, func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		made = append(made, identity.Load())
		mu.Unlock()
		return dial(ctx)
	})
	c.Follow(func() any { return identity.Load() })
	connections := func() int { mu.Lock(); defer mu.Unlock(); return len(made) }
	ask := func() {
		t.Helper()
		if _, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	late := make(chan error, 1)
	go func() {
		_, err := c.Do(t.Context(), frame.Call{Op: opWait}, ignore)
		late <- err
	}()
	identity.Store(1)
	for end := time.Now().Add(20 * time.Second); connections() < 2; time.Sleep(time.Millisecond) {
		ask()
		if time.Now().After(end) {
			t.Fatal("the connection was not made anew")
		}
	}
	ask()
	close(release)
	if err := <-late; err != nil {
		t.Errorf("a request on the old connection: %v", err)
	}
	for range 100 {
		ask()
	}
	if n := connections(); n != 2 || made[1] != 1 {
		t.Errorf("%d connections, with %v", n, made)
	}
}

// While the new one cannot be made the old one serves.
func TestFollowWithoutServer(t *testing.T) {
	var identity, refused atomic.Int64
	s := frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo})
	dial := dialer(serve(t, s))
	c := client(t, func(ctx context.Context) (net.Conn, error) {
		if identity.Load() == 1 {
			refused.Add(1)
			return nil, net.ErrClosed
		}
		return dial(ctx)
	})
	c.Follow(func() any { return identity.Load() })
	for end := time.Now().Add(20 * time.Second); refused.Load() == 0; time.Sleep(time.Millisecond) {
		if _, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err != nil {
			t.Fatal(err)
		}
		identity.Store(1)
		if time.Now().After(end) {
			t.Fatal("no new one was tried")
		}
	}
	for range 100 {
		if _, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err != nil {
			t.Fatal(err)
		}
	}
	if n := refused.Load(); n > 2 {
		t.Errorf("tried %d times at once", n)
	}
}

// A request that was given up on the old connection does not arrive there after
// its repetition on the new one: the old one is broken, under others too.
func TestFollowGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before bool // given up before the connection is made anew
	}{{"before", true}, {"after", false}} {
		t.Run(tt.name, func(t *testing.T) {
			var identity, made, waiting atomic.Int64
			release := make(chan struct{})
			s := frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo, opWait: func(context.Context, *frame.Request) (frame.Reply, error) {
				waiting.Add(1)
				<-release
				return frame.Reply{}, nil
			}})
			dial := dialer(serve(t, s))
			t.Cleanup(func() { close(release) })
			c := client(t, func(ctx context.Context) (net.Conn, error) {
				made.Add(1)
				return dial(ctx)
			})
			c.Follow(func() any { return identity.Load() })
			until := func(what string, f func() bool) {
				t.Helper()
				for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("never: %s", what)
					}
				}
			}
			ctx, giveUp := context.WithCancel(t.Context())
			given, other := make(chan error, 1), make(chan error, 1)
			go func() { _, err := c.Do(ctx, frame.Call{Op: opWait}, ignore); given <- err }()
			go func() { _, err := c.Do(t.Context(), frame.Call{Op: opWait}, ignore); other <- err }()
			until("both are on their way", func() bool { return waiting.Load() == 2 })
			if tt.before {
				giveUp()
				<-given
			}
			identity.Store(1)
			until("it is made anew", func() bool {
				// This one, too, may be on the old one.
				if _, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err != nil && !xos.Is(err, xos.Unavailable) {
					t.Fatal(err)
				}
				return made.Load() == 2
			})
			giveUp()
			select {
			case err := <-other:
				if !xos.Is(err, xos.Unavailable) {
					t.Errorf("the other: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the old connection is still there")
			}
		})
	}
}

// Who was refused for an old identity is served at once when there is a new one,
// however lately an attempt failed: a person who has just logged in again.
func TestFollowExpired(t *testing.T) {
	var identity, attempts atomic.Int64
	var slow atomic.Bool // the next attempt: then who waits for it gives up
	given, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	old := dialer(serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: func(context.Context, *frame.Request) (frame.Reply, error) {
		return frame.Reply{}, xos.Errorf(xos.Expired, "the credential has run out")
	}})))
	fresh := dialer(serve(t, frame.NewServer(quiet, map[frame.Op]frame.Handler{opEcho: echo})))
	c := client(t, func(ctx context.Context) (net.Conn, error) {
		attempts.Add(1)
		switch identity.Load() {
		case 0:
			return old(ctx)
		case 1:
			return nil, net.ErrClosed
		}
		if slow.CompareAndSwap(true, false) {
			giveUp()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return fresh(ctx)
	})
	c.Follow(func() any { return identity.Load() })
	ask := func() error {
		_, err := c.Do(t.Context(), frame.Call{Op: opEcho, Head: []byte("x")}, ignore)
		return err
	}
	for want, to := range []int64{0, 1} {
		identity.Store(to)
		for range 50 {
			if err := ask(); !xos.Is(err, xos.Expired) {
				t.Fatalf("with identity %d: %v", to, err)
			}
		}
		if n := attempts.Load(); n != int64(want+1) {
			t.Errorf("with identity %d: %d attempts, want one for each", to, n)
		}
	}
	// That somebody gives up an attempt says nothing of the new one.
	slow.Store(true)
	identity.Store(2)
	if _, err := c.Do(given, frame.Call{Op: opEcho, Head: []byte("x")}, ignore); err == nil || slow.Load() {
		t.Errorf("given up: %v", err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := ask(); err != nil {
				t.Errorf("with a new one: %v", err)
			}
		})
	}
	all.Wait()
	if n := attempts.Load(); n != 4 {
		t.Errorf("%d attempts", n)
	}
}
