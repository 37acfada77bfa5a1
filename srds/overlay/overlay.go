// Package overlay implements the service and resource directory service (SRDS)
// on the bus. A query is published; every machine that hears it compares it
// with what it is at that moment and answers by itself. Nothing is stored, so
// nothing can be out of date.
package overlay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/bus"
	"github.com/xtreemos/xos/srds"
	"github.com/xtreemos/xos/vom"
)

// Subjects are the pattern that every machine needs, to publish and to
// subscribe.
const Subjects = "rss.>"

const (
	querySubject  = "rss.query"
	answerSubject = "rss.answer."
)

// Bounds of what a peer can make this machine do.
const (
	maxRanges  = 64
	maxTexts   = 64
	maxQuery   = 16 << 10
	maxWaiting = 1024 // answers of one query not yet looked at
)

// Overlay implements srds.Directory.
type Overlay struct {
	conn   bus.Conn
	settle time.Duration
	log    *slog.Logger
	token  string
	stop   func() error

	mu       sync.Mutex
	asked    uint64
	waiting  map[uint64]chan answer
	describe func() srds.Attributes
}

var _ srds.Directory = (*Overlay)(nil)

// question and answer are what travels, as JSON.
type question struct {
	Query  srds.Query `json:"query"`
	Number uint64     `json:"number"`
	Token  string     `json:"token"` // where the answers go
}

type answer struct {
	Number  uint64           `json:"number"`
	Found   *srds.Attributes `json:"found,omitempty"`
	Refused string           `json:"refused,omitempty"` // the first condition that failed
}

// Config has usable zero values.
type Config struct {
	// Settle is how long Find waits for more after the first machine that
	// matches; 20 ms.
	Settle time.Duration
}

// New connects the directory to the bus. The caller must Close it, and the
// connection after it.
func New(cfg Config, conn bus.Conn, log *slog.Logger) (*Overlay, error) {
	if cfg.Settle == 0 {
		cfg.Settle = 20 * time.Millisecond
	}
	var token [12]byte
	rand.Read(token[:])
	o := &Overlay{conn: conn, settle: cfg.Settle, log: log, token: hex.EncodeToString(token[:]), waiting: map[uint64]chan answer{}}
	stop, err := conn.Subscribe(answerSubject+o.token, o.receive)
	if err != nil {
		return nil, err
	}
	o.stop = stop
	return o, nil
}

// Close ends the subscription to answers.
func (o *Overlay) Close() error { return o.stop() }

// Find implements srds.Directory. It returns early when max machines have
// answered, or when no more came shortly after the first. Without a connection
// to the bus, this machine is all there is to be found.
func (o *Overlay) Find(ctx context.Context, q srds.Query, max int, wait time.Duration) ([]srds.Attributes, map[string]int, error) {
	if err := check(q); err != nil {
		return nil, nil, err
	}
	refused := map[string]int{}
	if !o.conn.Connected() {
		return o.findHere(q, refused)
	}
	answers := make(chan answer, maxWaiting)
	o.mu.Lock()
	o.asked++
	number := o.asked
	o.waiting[number] = answers
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		delete(o.waiting, number)
		o.mu.Unlock()
	}()
	data, err := json.Marshal(question{Query: q, Number: number, Token: o.token})
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxQuery {
		return nil, nil, xos.Errorf(xos.TooLarge, "a query of %d bytes exceeds %d", len(data), maxQuery)
	}
	if err := o.conn.Publish(ctx, querySubject, data); err != nil {
		return nil, nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var found []srds.Attributes
	for len(found) < max {
		select {
		case a := <-answers:
			if a.Found == nil {
				refused[a.Refused]++
				continue
			}
			if found = append(found, *a.Found); len(found) == 1 {
				timer.Reset(min(wait, o.settle))
			}
		case <-timer.C:
			return found, refused, nil
		case <-ctx.Done():
			return found, refused, ctx.Err()
		}
	}
	return found, refused, nil
}

func (o *Overlay) findHere(q srds.Query, refused map[string]int) ([]srds.Attributes, map[string]int, error) {
	o.mu.Lock()
	describe := o.describe
	o.mu.Unlock()
	if describe == nil {
		return nil, nil, xos.Errorf(xos.Unavailable, "the grid's bus cannot be reached")
	}
	a := describe()
	if ok, why := q.Match(a); !ok {
		refused[why]++
		return nil, refused, nil
	}
	return []srds.Attributes{a}, refused, nil
}

// receive takes one answer. A machine speaks for itself only: on the bus its
// node service is NODE/node.
func (o *Overlay) receive(_ context.Context, m bus.Message) {
	var a answer
	if len(m.Data) > maxQuery || json.Unmarshal(m.Data, &a) != nil {
		return
	}
	if a.Found != nil && string(a.Found.Node)+"/"+string(vom.ServiceNode) != m.From {
		o.log.Warn("a machine answered for another", "machine", m.From, "claimed", string(a.Found.Node))
		return
	}
	o.mu.Lock()
	ch := o.waiting[a.Number]
	o.mu.Unlock()
	select {
	case ch <- a:
	default: // nobody waits any more, or too many answered
	}
}

// Answer implements srds.Directory.
func (o *Overlay) Answer(ctx context.Context, describe func() srds.Attributes) error {
	o.mu.Lock()
	o.describe = describe
	o.mu.Unlock()
	stop, err := o.conn.Subscribe(querySubject, func(ctx context.Context, m bus.Message) {
		q, err := decode(m.Data)
		if err != nil {
			o.log.Debug("a query was dropped", "machine", m.From, "error", err)
			return
		}
		a := answer{Number: q.Number}
		here := describe()
		if ok, why := q.Query.Match(here); ok {
			a.Found = &here
		} else {
			a.Refused = why
		}
		data, err := json.Marshal(a)
		if err == nil {
			err = o.conn.Publish(ctx, answerSubject+q.Token, data)
		}
		if err != nil {
			o.log.Debug("a query was not answered", "machine", m.From, "error", err)
		}
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return stop()
}

// decode reads a question from another machine.
func decode(data []byte) (question, error) {
	var q question
	if len(data) > maxQuery {
		return q, xos.Errorf(xos.TooLarge, "a query of %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &q); err != nil {
		return q, xos.Errorf(xos.Invalid, "a query is malformed: %w", err)
	}
	if len(q.Token) != 24 || strings.Trim(q.Token, "0123456789abcdef") != "" {
		return q, xos.Errorf(xos.Invalid, "a query without a place for its answers")
	}
	return q, check(q.Query)
}

func check(q srds.Query) error {
	if !xos.ValidName(string(q.VO)) {
		return xos.Errorf(xos.Invalid, "%.80q is no VO", string(q.VO))
	}
	if len(q.Ranges) > maxRanges {
		return xos.Errorf(xos.TooLarge, "a query with %d conditions", len(q.Ranges))
	}
	for _, r := range q.Ranges {
		if !xos.ValidName(r.Attribute) {
			return xos.Errorf(xos.Invalid, "%.80q is no attribute", r.Attribute)
		}
		if len(r.Texts) > maxTexts {
			return xos.Errorf(xos.TooLarge, "a condition with %d values", len(r.Texts))
		}
	}
	return nil
}
