// Package srds is the contract of the service and resource directory service
// (SRDS): machines describe themselves by attributes and answer, by
// themselves, the queries that they match. There is no central list.
// srds/overlay implements it on infra/bus.
package srds

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// Attributes describe a machine now. Numbers are of their SI base unit (bytes,
// cores, seconds).
type Attributes struct {
	Node    xos.NodeID         `json:"node"`
	Address string             `json:"address"` // host:port of its node service
	Number  map[string]float64 `json:"number"`  // "cpus", "memory", "load", "jobs", …
	Text    map[string]string  `json:"text"`    // "arch", "os", "isolation", …
	VOs     []xos.VOName       `json:"vos"`     // served; "*" for every one
}

// Range is one condition of a query: a number between bounds, both included
// (nil: none), or a text equal to one of Texts.
type Range struct {
	Attribute string   `json:"attribute"`
	Min       *float64 `json:"min,omitempty"`
	Max       *float64 `json:"max,omitempty"`
	Texts     []string `json:"texts,omitempty"`
}

// Query is a conjunction of ranges, for a VO's use.
type Query struct {
	VO     xos.VOName `json:"vo"`
	Ranges []Range    `json:"ranges"`
}

// Match reports whether a machine satisfies the query and, if not, the first
// condition that fails, for the answer to "why does my job not run".
func (q Query) Match(a Attributes) (ok bool, refused string) {
	served := false
	for _, vo := range a.VOs {
		served = served || vo == q.VO || vo == "*"
	}
	if !served {
		return false, "vo"
	}
	for _, r := range q.Ranges {
		if !r.match(a) {
			return false, r.Attribute
		}
	}
	return true, ""
}

func (r Range) match(a Attributes) bool {
	if len(r.Texts) > 0 {
		for _, t := range r.Texts {
			if a.Text[r.Attribute] == t {
				return true
			}
		}
		return false
	}
	n, ok := a.Number[r.Attribute]
	return ok && (r.Min == nil || n >= *r.Min) && (r.Max == nil || n <= *r.Max)
}

// Directory finds machines. Answer makes this machine one that is found.
type Directory interface {
	// Find gives the machines that answered, in order of arrival, at most max,
	// within wait; refused counts, by attribute, those that said no.
	Find(ctx context.Context, q Query, max int, wait time.Duration) (found []Attributes, refused map[string]int, err error)
	// Answer answers queries with what describe gives at that moment, until
	// ctx ends.
	Answer(ctx context.Context, describe func() Attributes) error
}
