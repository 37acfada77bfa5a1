// Package rpc is the glue between the project's contracts and Connect: servers
// and clients on TLS and on unix sockets, who the peer is, and how an
// xos.Error crosses the wire with its kind and hint.
package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Peer is who sits at the other end of a call, as the transport knows it.
type Peer struct {
	// Unix is true for a local socket; UID, GID and PID are then what the
	// kernel said when the connection was made.
	Unix     bool
	UID, GID uint32
	PID      int
	// Chain is the verified client certificate, leaf first; empty if the
	// client showed none.
	Chain []*x509.Certificate
	// Address of a remote peer.
	Address string
}

type peerKey struct{}

// PeerFrom gives the peer of the call that ctx belongs to. A context that did
// not come from this package's servers gives a peer that is nobody.
func PeerFrom(ctx context.Context) Peer {
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		return p
	}
	return Peer{UID: ^uint32(0), GID: ^uint32(0)}
}

// WithPeer gives a context whose calls come from p, for tests of handlers.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// connPeer finds out about a freshly accepted connection.
func connPeer(c net.Conn) Peer {
	switch c := c.(type) {
	case *net.UnixConn:
		p := Peer{Unix: true, UID: ^uint32(0), GID: ^uint32(0)}
		if cred, err := unixCredentials(c); err == nil {
			p.UID, p.GID, p.PID = cred.Uid, cred.Gid, int(cred.Pid)
		}
		return p
	case *tls.Conn:
		return Peer{UID: ^uint32(0), GID: ^uint32(0), Address: c.RemoteAddr().String()}
	}
	return Peer{UID: ^uint32(0), GID: ^uint32(0)}
}

func unixCredentials(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, inner
}

// ListenUnix makes a socket at path with the given mode, in place of one that
// a killed predecessor left. A socket that somebody still serves is an error.
// Who says of itself that it is ready makes its sockets before.
func ListenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, xos.Errorf(xos.Exists, "another process serves %s", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
