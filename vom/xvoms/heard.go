package xvoms

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

const (
	// silentFor is when a node that asks for news every ten seconds, or more
	// often, is not there.
	silentFor = time.Minute
	// heardFor is how long one that is not there is remembered.
	heardFor = 24 * time.Hour
	// maxSaid bounds the names in a node's word.
	maxSaid = 10000
)

// InForce is what a node says of the policies of isolation there: that those of
// the bundle with this epoch are in force (0: none), which VOs it serves, and whose
// policy it cannot read.
type InForce struct {
	Epoch       uint64
	VOs, Unread []xos.VOName
}

// IsolationAt says whether a VO's policy is in force on a node, and why not.
type IsolationAt struct {
	Node    xos.NodeID
	InForce bool
	Why     string
	Heard   time.Time
}

// heard is what nodes said last. It is in memory: after a restart of the core they
// say it anew.
type heard struct {
	mu sync.Mutex
	of map[xos.NodeID]word
}

type word struct {
	InForce
	at time.Time
}

// Heard takes a node's word, which is about itself alone. One that is too long is
// not taken.
func (r *Records) Heard(node xos.NodeID, said InForce) {
	if len(said.VOs)+len(said.Unread) > maxSaid {
		return
	}
	r.heard.mu.Lock()
	defer r.heard.mu.Unlock()
	if r.heard.of == nil {
		r.heard.of = map[xos.NodeID]word{}
	}
	r.heard.of[node] = word{said, r.now()}
}

func (h *heard) forget(node xos.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, node)
}

// isolationAt gives the nodes that serve a VO, by name, and whether the policy that
// it has since an epoch is in force there. latest is the epoch of the records: a
// node with a later one has its news from records that were replaced by a backup.
func (h *heard) isolationAt(vo xos.VOName, since, latest uint64, now time.Time) (nodes []IsolationAt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for node, w := range h.of {
		age := now.Sub(w.at)
		if age > heardFor {
			delete(h.of, node)
			continue
		}
		if !slices.Contains(w.VOs, vo) && !slices.Contains(w.VOs, "*") {
			continue
		}
		at := IsolationAt{Node: node, Heard: w.at}
		switch {
		case age > silentFor:
			at.Why = "not heard of"
		case w.Epoch == 0:
			at.Why = "no policies are in force there"
		case w.Epoch > latest:
			at.Why = "its news are later than the core's"
		case w.Epoch < since:
			at.Why = "an earlier one is in force"
		case slices.Contains(w.Unread, vo):
			at.Why = "it cannot read this one: the VO shares nothing there and may do least"
		default:
			at.InForce = true
		}
		nodes = append(nodes, at)
	}
	slices.SortFunc(nodes, func(a, b IsolationAt) int { return cmp.Compare(a.Node, b.Node) })
	return nodes
}
