package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
)

// The headers that carry what a Connect code cannot.
const (
	kindHeader = "Xos-Kind"
	hintHeader = "Xos-Hint"
)

var codes = map[xos.Kind]connect.Code{
	xos.Internal:     connect.CodeInternal,
	xos.NotFound:     connect.CodeNotFound,
	xos.Exists:       connect.CodeAlreadyExists,
	xos.Permission:   connect.CodePermissionDenied,
	xos.Invalid:      connect.CodeInvalidArgument,
	xos.Unavailable:  connect.CodeUnavailable,
	xos.NotSupported: connect.CodeUnimplemented,
	xos.Expired:      connect.CodeUnauthenticated,
	xos.Conflict:     connect.CodeAborted,
	xos.TooLarge:     connect.CodeResourceExhausted,
}

// ServerOptions are the options of every handler: errors are turned into
// Connect errors, internal ones logged under a number and told by that number
// only; messages are bounded.
func ServerOptions(log *slog.Logger) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(serverErrors{log}),
		connect.WithReadMaxBytes(4 << 20),
	}
}

// ClientOptions are the options of every client: Connect errors become
// xos.Errors again.
func ClientOptions() []connect.ClientOption {
	return []connect.ClientOption{connect.WithInterceptors(clientErrors{}), connect.WithReadMaxBytes(16 << 20)}
}

// toWire is what a remote peer may see of err.
func toWire(log *slog.Logger, procedure string, err error) error {
	if err == nil {
		return nil
	}
	var ce *connect.Error
	if errors.As(err, &ce) {
		return err
	}
	kind := xos.KindOf(err)
	var xe *xos.Error
	msg, hint := err.Error(), ""
	if errors.As(err, &xe) {
		msg, hint = xe.Msg, xe.Hint
	}
	if kind == xos.Internal {
		var id [6]byte
		rand.Read(id[:])
		number := hex.EncodeToString(id[:])
		log.Error("internal error", "procedure", procedure, "number", number, "error", err)
		msg, hint = "internal error", "the server's log has it under "+number
	}
	out := connect.NewError(codes[kind], errors.New(msg))
	out.Meta().Set(kindHeader, kind.String())
	if hint != "" {
		out.Meta().Set(hintHeader, url.QueryEscape(hint))
	}
	return out
}

// fromWire is the reverse; an error that is not the peer's answer tells which
// peer could not be reached.
func fromWire(err error, peer string) error {
	var ce *connect.Error
	if err == nil || !errors.As(err, &ce) {
		return err
	}
	kind := xos.Internal
	for k, c := range codes {
		if c == ce.Code() {
			kind = k
		}
	}
	switch ce.Code() {
	case connect.CodeCanceled, connect.CodeDeadlineExceeded:
		kind = xos.Unavailable
	case connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		kind = xos.Invalid
	}
	if !connect.IsWireError(err) && kind != xos.Unavailable {
		kind = xos.Unavailable // the connection, not the server's answer
	}
	if !connect.IsWireError(err) {
		return &xos.Error{Kind: kind, Msg: "no answer from " + peer + ": " + ce.Message(), Err: cause{ce}}
	}
	hint, _ := url.QueryUnescape(ce.Meta().Get(hintHeader))
	return &xos.Error{Kind: kind, Msg: ce.Message(), Hint: hint, Err: cause{ce}}
}

// cause keeps the Connect error reachable without printing it twice.
type cause struct{ err error }

func (cause) Error() string   { return "" }
func (c cause) Unwrap() error { return c.err }

type serverErrors struct{ log *slog.Logger }

func (s serverErrors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, toWire(s.log, req.Spec().Procedure, err)
		}
		return resp, nil
	}
}

func (s serverErrors) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (s serverErrors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return toWire(s.log, conn.Spec().Procedure, next(ctx, conn))
	}
}

type clientErrors struct{}

func (clientErrors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, fromWire(err, req.Peer().Addr)
		}
		return resp, nil
	}
}

func (clientErrors) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return clientStream{next(ctx, spec)}
	}
}

func (clientErrors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// clientStream turns the errors of a stream; io.EOF passes as it is.
type clientStream struct{ connect.StreamingClientConn }

func (c clientStream) Receive(msg any) error {
	return fromWire(c.StreamingClientConn.Receive(msg), c.Peer().Addr)
}

func (c clientStream) Send(msg any) error {
	return fromWire(c.StreamingClientConn.Send(msg), c.Peer().Addr)
}
