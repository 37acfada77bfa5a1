// Package natsd is the bus's server: NATS, embedded in a process of the grid's
// core.
//
// It speaks mutual TLS only, the handshake before any other byte. Who a
// connection is, and which subjects it may use, the caller's Authorize decides
// from the client's certificate; deny is the default. infra/bus/wire tells how
// the server's permissions make a message's sender certain.
//
// A connection ends when its certificate does; Recheck asks Authorize again
// for all, after a revocation. There is no persistence (JetStream), no
// websocket, no MQTT, and no other account: what is not configured here does
// not listen.
package natsd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus/wire"
)

// Authorize says who the owner of a verified or unverified chain (leaf first)
// is and which subjects, patterns allowed, she may publish and subscribe. If
// the TLS configuration does not verify the chain, Authorize must. An error
// refuses the connection.
type Authorize func(chain []*x509.Certificate) (name string, pub, sub []string, err error)

// Config has no optional security: TLS and Authorize must be given.
type Config struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// TLS must ask for a client certificate (tls.RequireAnyClientCert or
	// stricter).
	TLS       *tls.Config
	Authorize Authorize
	// Name shows in the clients' logs; "xos".
	Name string
	// MaxPayload bounds a message, in bytes; 1 MiB.
	MaxPayload int
	// MaxConnections; 10,000.
	MaxConnections int
	Log            *slog.Logger // discards
}

// Server is the embedded server. The caller must Close it.
type Server struct {
	srv *server.Server
	gate
}

// gate decides on each connection and remembers for Recheck what it decided.
type gate struct {
	authorize Authorize
	log       *slog.Logger
	mu        sync.Mutex
	admitted  map[uint64]admission // by connection
}

// admission is what a connection was let in with.
type admission struct {
	chain    []*x509.Certificate
	name     string
	pub, sub []string
}

// Start listens when it returns.
func Start(cfg Config) (*Server, error) {
	if cfg.TLS == nil || cfg.Authorize == nil {
		return nil, xos.Errorf(xos.Invalid, "the bus needs a TLS configuration and an authorizer")
	}
	// With GetConfigForClient the choice is the callback's; Check refuses an
	// empty chain in any case.
	if cfg.TLS.GetConfigForClient == nil && cfg.TLS.ClientAuth < tls.RequireAnyClientCert {
		return nil, xos.Errorf(xos.Invalid, "the bus needs a TLS configuration that requires client certificates")
	}
	host, portText, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "the bus cannot listen on %q: %w", cfg.Listen, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "the bus cannot listen on %q: %w", cfg.Listen, err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	opts := &server.Options{
		ServerName: or(cfg.Name, "xos"), Host: host, Port: int(port),
		TLSConfig: cfg.TLS, TLS: true, TLSVerify: true, TLSHandshakeFirst: true, TLSTimeout: 5, AuthTimeout: 7,
		MaxPayload: int32(or(cfg.MaxPayload, 1<<20)), MaxConn: or(cfg.MaxConnections, 10_000),
		MaxControlLine: 2048, MaxSubs: 10_000, MaxPending: 16 << 20, WriteDeadline: 5 * time.Second,
		PingInterval: 20 * time.Second, MaxPingsOut: 2,
		NoSigs: true, DisableShortFirstPing: true,
	}
	if port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s := &Server{gate: gate{authorize: cfg.Authorize, log: cfg.Log, admitted: map[uint64]admission{}}}
	opts.CustomClientAuthentication = &s.gate
	if s.srv, err = server.NewServer(opts); err != nil {
		return nil, xos.Errorf(xos.Internal, "start the bus: %w", err)
	}
	failed := make(chan string, 1)
	s.srv.SetLogger(logger{cfg.Log, failed}, false, false)
	s.srv.Start()
	if !s.srv.ReadyForConnections(5 * time.Second) {
		s.Close()
		select {
		case why := <-failed:
			return nil, xos.Errorf(xos.Unavailable, "start the bus on %s: %s", cfg.Listen, why)
		default:
			return nil, xos.Errorf(xos.Unavailable, "start the bus on %s: it does not come up", cfg.Listen)
		}
	}
	return s, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Addr is where it listens, host:port.
func (s *Server) Addr() string { return s.srv.Addr().String() }

// Close ends all connections and returns when the server has stopped.
func (s *Server) Close() error {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	return nil
}

// Recheck asks Authorize again for every connection and ends those it refuses.
// Call it when trust, revocations or bans have changed. A connection whose
// permitted subjects changed ends too: it comes back by itself, with the new
// ones.
func (s *Server) Recheck() {
	s.mu.Lock()
	for id := range s.admitted {
		if s.srv.GetClient(id) == nil {
			delete(s.admitted, id)
		}
	}
	admitted := maps.Clone(s.admitted)
	s.mu.Unlock()
	for id, a := range admitted {
		name, pub, sub, err := s.authorize(a.chain)
		if err == nil && name == a.name && slices.Equal(pub, a.pub) && slices.Equal(sub, a.sub) {
			continue
		}
		s.log.Info("bus connection ended: what it may do has changed", "name", a.name, "err", err)
		// It may have gone by itself, which is as good.
		_ = s.srv.DisconnectClientByID(id)
	}
}

// Check implements server.Authentication.
func (g *gate) Check(c server.ClientAuthentication) bool {
	a, err := g.admit(c)
	if err != nil {
		g.log.Warn("bus connection refused", "remote", fmt.Sprint(c.RemoteAddress()), "err", err)
		return false
	}
	g.mu.Lock()
	g.admitted[c.GetID()] = a
	g.mu.Unlock()
	c.RegisterUser(a.user())
	return true
}

func (g *gate) admit(c server.ClientAuthentication) (a admission, err error) {
	if c.Kind() != server.CLIENT {
		return a, xos.Errorf(xos.Permission, "only clients may connect")
	}
	state := c.GetTLSConnectionState()
	if state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return a, xos.Errorf(xos.Permission, "no certificate was presented")
	}
	a.chain = state.PeerCertificates
	if a.name, a.pub, a.sub, err = g.authorize(a.chain); err != nil {
		return a, err
	}
	if err := wire.CheckName(a.name); err != nil {
		return a, err
	}
	for _, p := range slices.Concat(a.pub, a.sub) {
		if err := wire.Check(p, true); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a admission) user() *server.User {
	return &server.User{
		Username: a.name,
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: wire.MayPublish(a.name, a.pub)},
			Subscribe: &server.SubjectPermission{Allow: wire.MaySubscribe(a.name, a.sub)},
		},
		ConnectionDeadline: a.chain[0].NotAfter,
	}
}

// logger passes the server's messages on.
type logger struct {
	log    *slog.Logger
	failed chan string // the first fatal message
}

func (l logger) Noticef(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...), "from", "nats") }
func (l logger) Warnf(f string, a ...any)   { l.log.Warn(fmt.Sprintf(f, a...), "from", "nats") }
func (l logger) Errorf(f string, a ...any)  { l.log.Warn(fmt.Sprintf(f, a...), "from", "nats") }
func (l logger) Debugf(f string, a ...any)  {}
func (l logger) Tracef(f string, a ...any)  {}
func (l logger) Fatalf(f string, a ...any) {
	l.log.Error(fmt.Sprintf(f, a...), "from", "nats")
	select {
	case l.failed <- fmt.Sprintf(f, a...):
	default:
	}
}
