package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

// machines answers Bundle with the error under test, or with the peer's uid.
type machines struct {
	xosv1connect.UnimplementedMachinesHandler
	err error
}

func (m machines) Bundle(ctx context.Context, _ *connect.Request[xosv1.BundleRequest]) (*connect.Response[xosv1.BundleResponse], error) {
	if m.err != nil {
		return nil, m.err
	}
	p := rpc.PeerFrom(ctx)
	if !p.Unix || p.PID != os.Getpid() {
		return nil, xos.Errorf(xos.Permission, "peer is %+v", p)
	}
	return connect.NewResponse(&xosv1.BundleResponse{Epoch: uint64(p.UID)}), nil
}

func serve(t *testing.T, m machines, log *strings.Builder) xosv1connect.MachinesClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	mux := http.NewServeMux()
	mux.Handle(xosv1connect.NewMachinesHandler(m, rpc.ServerOptions(slog.New(slog.NewTextHandler(log, nil)))...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rpc.ServeUnix(ctx, path, 0o600, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); ; {
		// It is there a moment before anybody listens.
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("socket never appeared")
		}
		time.Sleep(time.Millisecond)
	}
	return xosv1connect.NewMachinesClient(rpc.UnixClient(path), rpc.UnixBase, rpc.ClientOptions()...)
}

func TestPeerOfUnixSocket(t *testing.T) {
	c := serve(t, machines{}, &strings.Builder{})
	resp, err := c.Bundle(context.Background(), connect.NewRequest(&xosv1.BundleRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if int(resp.Msg.Epoch) != os.Getuid() {
		t.Errorf("peer uid %d, want %d", resp.Msg.Epoch, os.Getuid())
	}
}

func TestKindsCrossTheWire(t *testing.T) {
	for k := xos.Internal + 1; k <= xos.TooLarge; k++ {
		c := serve(t, machines{err: xos.Errorf(k, "no luck").WithHint("try %s; then “rest”", k)}, &strings.Builder{})
		_, err := c.Bundle(context.Background(), connect.NewRequest(&xosv1.BundleRequest{}))
		if !xos.Is(err, k) {
			t.Errorf("%v arrived as %v (%v)", k, xos.KindOf(err), err)
		}
		var xe *xos.Error
		if !errors.As(err, &xe) || xe.Msg != "no luck" || !strings.HasPrefix(xe.Hint, "try ") || !strings.Contains(xe.Hint, "“rest”") {
			t.Errorf("%v arrived as %#v", k, err)
		}
	}
}

func TestInternalErrorsDoNotLeak(t *testing.T) {
	var log strings.Builder
	c := serve(t, machines{err: errors.New("open /var/secret: denied")}, &log)
	_, err := c.Bundle(context.Background(), connect.NewRequest(&xosv1.BundleRequest{}))
	if !xos.Is(err, xos.Internal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("peer saw %v", err)
	}
	if !strings.Contains(log.String(), "secret") {
		t.Errorf("log lacks the cause: %s", log.String())
	}
}

func TestNoServerIsUnavailable(t *testing.T) {
	c := xosv1connect.NewMachinesClient(rpc.UnixClient(filepath.Join(t.TempDir(), "none")), rpc.UnixBase, rpc.ClientOptions()...)
	_, err := c.Bundle(context.Background(), connect.NewRequest(&xosv1.BundleRequest{}))
	if !xos.Is(err, xos.Unavailable) {
		t.Errorf("got %v", err)
	}
}
