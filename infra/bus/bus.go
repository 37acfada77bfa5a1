// Package bus is the contract for messages between the grid's machines:
// publish and subscribe, request and reply. infra/bus/nats implements it,
// infra/bus/natsd is its server. Nothing that must not be lost travels on the
// bus alone: records belong to infra/kv, and a subscriber that may have missed
// a message asks the record's keeper.
package bus

import (
	"context"
	"time"
)

// Message is what arrives. Subject is a dot-separated path of words.
type Message struct {
	Subject string
	Data    []byte
	// From is the sender as the transport authenticated it; "" if it did not.
	From string
	// Respond answers a request; it is nil where none was asked for.
	Respond func(data []byte) error
}

// Handler is called in a goroutine of its own for every message.
type Handler func(ctx context.Context, m Message)

// Conn is a connection to the bus; it reconnects by itself for ever. It is
// safe for concurrent use.
type Conn interface {
	// Publish sends without acknowledgement.
	Publish(ctx context.Context, subject string, data []byte) error
	// Request gives the first reply; xos.Unavailable when nobody listens or
	// nobody answered before ctx ended.
	Request(ctx context.Context, subject string, data []byte) (Message, error)
	// Gather gives up to max replies, as many as arrive within wait.
	Gather(ctx context.Context, subject string, data []byte, max int, wait time.Duration) ([]Message, error)
	// Subscribe calls h for every message on a subject ('*' stands for one
	// word, a last '>' for the rest) until the returned function is called.
	Subscribe(subject string, h Handler) (cancel func() error, err error)
	// Connected reports the present state, and Changed is signalled (at most
	// one pending) whenever it changes: after a gap, ask the records anew.
	Connected() bool
	Changed() <-chan struct{}
	Close() error
}
