package frame

import (
	"crypto/sha256"
	"sync"
	"time"
)

// knownFor is how long a peer is believed without verifying it anew: so long,
// too, a revocation may take to be felt.
const knownFor = time.Second

// maxKnown bounds the peers remembered.
const maxKnown = 4096

// Known remembers for a moment what verifying peers' certificates gave, for
// servers that must ask before every request. The zero value is ready; it is
// safe for concurrent use.
type Known[T any] struct {
	mu    sync.Mutex
	peers map[[sha256.Size]byte]known[T]
}

type known[T any] struct {
	who T
	at  time.Time
}

// Get gives what verify said of the peer a moment ago, or asks it. A refusal
// is not remembered.
func (k *Known[T]) Get(p *Peer, verify func() (T, error)) (T, error) {
	if len(p.Chain) == 0 {
		return verify()
	}
	now := time.Now()
	k.mu.Lock()
	found, ok := k.peers[p.Fingerprint]
	k.mu.Unlock()
	if ok && now.Sub(found.at) < knownFor {
		return found.who, nil
	}
	who, err := verify()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		delete(k.peers, p.Fingerprint)
		return who, err
	}
	if k.peers == nil || len(k.peers) >= maxKnown {
		k.peers = map[[sha256.Size]byte]known[T]{}
	}
	k.peers[p.Fingerprint] = known[T]{who, now}
	return who, nil
}
