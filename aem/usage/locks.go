package usage

import "sync"

// locks has a lock for each name, while somebody holds it or waits for it: what is
// written down of one waits for nobody else's disk. The zero value is ready.
type locks[K comparable] struct {
	mu sync.Mutex
	of map[K]*lock
}

type lock struct {
	sync.Mutex
	wanted int // by how many; locks.mu guards it
}

// lock waits for a name's lock, and gives what unlocks it.
func (l *locks[K]) lock(name K) (unlock func()) {
	l.mu.Lock()
	one := l.of[name]
	if one == nil {
		if l.of == nil {
			l.of = map[K]*lock{}
		}
		one = &lock{}
		l.of[name] = one
	}
	one.wanted++
	l.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.wanted--; one.wanted == 0 {
			delete(l.of, name)
		}
	}
}
