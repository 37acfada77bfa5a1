package testbed

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ReachMirror lets the node's apt reach the Debian archive that the host's is
// configured with, and nothing else: at an address of the node's own loopback,
// which it returns, until stop is called.
func (n *Node) ReachMirror(ctx context.Context) (archive string, stop func(), err error) {
	mirror, err := url.Parse(Mirror(ctx))
	if err != nil {
		return "", nil, err
	}
	transport := &http.Transport{DisableCompression: true}
	if proxy := AptProxy(ctx); proxy != "" {
		by, err := url.Parse(proxy)
		if err != nil {
			return "", nil, err
		}
		transport.Proxy = http.ProxyURL(by)
	}
	listener, err := listenIn(n.grid.net.path(n.grid.net.nodeNS(n.Name)))
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(mirror) },
		Transport: transport,
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			n.grid.cfg.Log.Error("the way to the mirror is closed", "node", n.Name, "error", err)
		}
	}()
	stop = func() {
		server.Close()
		<-done
		transport.CloseIdleConnections()
	}
	return "http://" + listener.Addr().String(), stop, nil
}

// listenIn listens at the loopback of a network namespace.
func listenIn(namespace string) (listener net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: a thread in another namespace ends with its goroutine.
		runtime.LockOSThread()
		var file *os.File
		if file, err = os.Open(namespace); err != nil {
			return
		}
		defer file.Close()
		if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
			listener, err = net.Listen("tcp4", "127.0.0.1:0")
		}
	}()
	<-done
	return listener, err
}
