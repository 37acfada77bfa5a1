package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

// ServeUnix serves handler on a unix socket (HTTP/1.1 and h2c) until ctx ends,
// then waits a little for calls under way. The socket's mode says who may
// connect; who may do what is the handler's decision, by PeerFrom.
func ServeUnix(ctx context.Context, path string, mode os.FileMode, handler http.Handler) error {
	l, err := ListenUnix(path, mode)
	if err != nil {
		return err
	}
	return Serve(ctx, l, handler)
}

// ServeTLS serves handler on l until ctx ends. What client certificates are
// asked for and accepted stands in cfg.
func ServeTLS(ctx context.Context, l net.Listener, cfg *tls.Config, handler http.Handler) error {
	cfg = cfg.Clone()
	cfg.NextProtos = NextProtos()
	return Serve(ctx, tls.NewListener(l, cfg), handler)
}

// NextProtos are the protocols that a server's TLS offers. Where a configuration
// is made for each client, that one must have them too.
func NextProtos() []string { return []string{"h2", "http/1.1"} }

// Serve serves handler on a listener that was made already, a unix or a TLS
// one, until ctx ends.
func Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Handler:           withTLSPeer(handler),
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return WithPeer(ctx, connPeer(c))
		},
		// Failed handshakes of strangers are no news for the log.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		s.Close() // streams that never end, such as an attached job's
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// withTLSPeer adds the client's certificate, which is known only after the
// handshake, to the call's peer.
func withTLSPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			p := PeerFrom(r.Context())
			p.Chain = r.TLS.PeerCertificates
			p.Address = r.RemoteAddr
			r = r.WithContext(WithPeer(r.Context(), p))
		}
		next.ServeHTTP(w, r)
	})
}

// UnixBase is the base URL of a service on a unix socket.
const UnixBase = "http://unix"

// UnixClient gives an HTTP client whose every connection goes to the socket.
func UnixClient(path string) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols: &protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}

// TLSClient gives an HTTP/2 client with the given TLS configuration. A dead
// peer is noticed within half a minute.
func TLSClient(cfg *tls.Config) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols:           &protocols,
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: 5 * time.Second,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 10 * time.Second}).DialContext,
		IdleConnTimeout:     90 * time.Second,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second},
	}}
}
