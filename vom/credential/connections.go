package credential

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// Connections are a server's open TLS connections whose peers were good when
// they connected. Each request is judged for itself, but a stream that never
// ends, or a peer that only listens, is not asked again: Recheck ends what is
// not good any more.
type Connections struct {
	good func(chain []*x509.Certificate) error

	mu   sync.Mutex
	open map[net.Conn][]*x509.Certificate // raw connection → what its peer showed
}

// Connections watches connections of users and machines.
func (v *Verifier) Connections() *Connections {
	return &Connections{good: v.peer, open: map[net.Conn][]*x509.Certificate{}}
}

// RunningConnections watches those of a service that attends to what runs: see
// X509Running.
func (v *Verifier) RunningConnections() *Connections {
	return &Connections{good: v.runningPeer, open: map[net.Conn][]*x509.Certificate{}}
}

// Watch gives a listener and a configuration in the places of these, both to
// be used together. The configuration's own verification stays in force; a peer
// whom it admits though her certificate is not good is not watched: what she
// may ask is decided elsewhere.
func (c *Connections) Watch(l net.Listener, cfg *tls.Config) (net.Listener, *tls.Config) {
	watched := cfg.Clone()
	watched.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := watched.Clone()
		own.GetConfigForClient = nil
		own.VerifyConnection = func(s tls.ConnectionState) error {
			if cfg.VerifyConnection != nil {
				if err := cfg.VerifyConnection(s); err != nil {
					return err
				}
			}
			if len(s.PeerCertificates) > 0 && c.good(s.PeerCertificates) == nil {
				c.mu.Lock()
				// Not one that was closed meanwhile: see watchedConn.Close.
				if _, accepted := c.open[hello.Conn]; accepted {
					c.open[hello.Conn] = s.PeerCertificates
				}
				c.mu.Unlock()
			}
			return nil
		}
		return own, nil
	}
	return watchedListener{l, c}, watched
}

// answerTime is what is left to answers under way, that to a user's own
// revocation above all: new requests are refused already.
const answerTime = 500 * time.Millisecond

// Recheck ends, in a moment, the connections of peers who are refused now, or whose
// certificate has run out. Where this machine cannot judge, for lack of news,
// they stay: their requests are refused.
func (c *Connections) Recheck() (ended int) {
	c.mu.Lock()
	chains := make(map[net.Conn][]*x509.Certificate, len(c.open))
	for conn, chain := range c.open {
		if chain != nil {
			chains[conn] = chain
		}
	}
	c.mu.Unlock()
	for conn, chain := range chains {
		if err := c.good(chain); xos.Is(err, xos.Permission) || xos.Is(err, xos.Expired) {
			c.mu.Lock()
			if _, open := c.open[conn]; open {
				c.open[conn] = nil // once
			}
			c.mu.Unlock()
			time.AfterFunc(answerTime, func() { conn.Close() })
			ended++
		}
	}
	return ended
}

// recheckEvery is how soon the end of a certificate ends its connections.
const recheckEvery = 30 * time.Second

// Run rechecks from time to time, since certificates run out without news.
func (c *Connections) Run(ctx context.Context) error {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.Recheck()
		}
	}
}

type watchedListener struct {
	net.Listener
	c *Connections
}

func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &watchedConn{Conn: conn, c: l.c}
	l.c.mu.Lock()
	l.c.open[w] = nil
	l.c.mu.Unlock()
	return w, nil
}

// watchedConn is one raw connection, below TLS.
type watchedConn struct {
	net.Conn
	c *Connections
}

func (w *watchedConn) Close() error {
	w.c.mu.Lock()
	delete(w.c.open, w)
	w.c.mu.Unlock()
	return w.Conn.Close()
}

// runningPeer is peer for a service that attends to what runs.
func (v *Verifier) runningPeer(chain []*x509.Certificate) error {
	if _, err := MachineFromX509(chain[0]); err == nil {
		_, err := v.Machine(chain)
		return err
	}
	_, err := v.X509Running(chain)
	return err
}

// RunningServerTLS is ServerTLS with a certificate required, for a service that
// attends to what runs: see X509Running.
func (v *Verifier) RunningServerTLS(cert Certificate) *tls.Config {
	c := v.ServerTLS(cert, true)
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return xos.Errorf(xos.Permission, "no certificate was shown")
		}
		return v.runningPeer(s.PeerCertificates)
	}
	return c
}
