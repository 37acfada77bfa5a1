package wire

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/xtreemos/xos"
)

// connectTime is how long the server's queue may keep a client waiting.
const connectTime = 200 * time.Millisecond

// Client is a second reader of the protocol, for tests; the modules and
// xos-principals have theirs in C.
type Client struct {
	// Path of the socket.
	Path string
	// Root refuses servers that do not run as root.
	Root bool
}

// Principals asks which principal a certificate must name.
func (c Client) Principals(ctx context.Context, login, keyType, key string) (string, error) {
	var e encoder
	e.str(login)
	e.str(keyType)
	e.str(key)
	if e.err != nil {
		return "", e.err
	}
	d, err := c.call(ctx, opPrincipals, e.b)
	if err != nil {
		return "", err
	}
	principal := d.str()
	if err := d.end(); err != nil {
		return "", err
	}
	return principal, nil
}

// call sends one request and gives the fields of its reply, or the error that
// the reply is.
func (c Client) call(ctx context.Context, o op, body []byte) (*decoder, error) {
	request, err := message(o, stOK, body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.patience())
	defer cancel()
	dialer := net.Dialer{Timeout: connectTime}
	conn, err := dialer.DialContext(ctx, "unix", c.Path)
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "session service: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	if c.Root {
		p, err := peerOf(conn.(*net.UnixConn))
		closePeer(p)
		if err != nil || p.UID != 0 {
			return nil, xos.Errorf(xos.Permission, "%s is served by uid %d, not by root", c.Path, p.UID)
		}
	}
	if _, err := conn.Write(request); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "session service: %w", err)
	}
	return readReply(conn, o)
}

func readReply(r io.Reader, o op) (*decoder, error) {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "session service: %w", err)
	}
	hd, err := parseHeader(head)
	if err != nil {
		return nil, err
	}
	if hd.op != o {
		return nil, xos.Errorf(xos.Invalid, "the session service answered another request")
	}
	body := make([]byte, hd.length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "session service: %w", err)
	}
	d := &decoder{b: body}
	if hd.status == stOK {
		return d, nil
	}
	text := d.str()
	if err := d.end(); err != nil {
		return nil, err
	}
	return nil, &xos.Error{Kind: hd.status.kind(), Msg: text}
}
