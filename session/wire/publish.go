package wire

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// Publisher keeps the snapshots of a machine's VOs in a directory, which is its
// own. It is safe for concurrent use. What it calls must not call it.
//
// A change writes a head that is bounded whatever the VO's size; the base is
// written anew while changes go on. A crash on any line leaves a head and the
// base that it names; what else is left, Retain removes.
type Publisher struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	last   uint64 // generation
	vos    map[xos.VOName]*published
	whole  map[xos.VOName]*sync.Mutex // held while all of a VO is written
	making int                        // bases that are being written
}

// NewPublisher publishes in dir (mode 0755, root's). Generations grow with the
// clock, so that they do over restarts too.
func NewPublisher(dir string, now func() time.Time) *Publisher {
	return &Publisher{dir: dir, now: now, vos: map[xos.VOName]*published{}, whole: map[xos.VOName]*sync.Mutex{}}
}

// generation gives the next one.
func (p *Publisher) generation() uint64 {
	p.last = max(p.last+1, uint64(p.now().UnixNano()))
	return p.last
}

// Publish publishes all of a VO, which collect gives. Changes that come meanwhile are neither held up nor lost.
func (p *Publisher) Publish(vo xos.VOName, collect func() (Whole, error)) error {
	whole, old := p.begin(vo)
	defer whole.Unlock()
	fresh, err := p.prepare(vo, collect)
	gone, err := p.replace(vo, old, fresh, err)
	if gone != nil {
		gone.drop() // to free a large file takes long enough for a change to come
	}
	return err
}

// replace puts what was prepared in place of the VO's former snapshot, and gives
// the one of the two that is of no use any more.
func (p *Publisher) replace(vo xos.VOName, old, fresh *published, err error) (gone *published, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making--
	var meanwhile map[string]*SnapshotUser
	if old != nil {
		meanwhile = old.taking
		old.taking, old.asked = nil, false
	}
	if err != nil {
		return nil, err
	}
	if p.vos[vo] != old { // taken back meanwhile
		return fresh, nil
	}
	if err = fresh.repeat(meanwhile); err == nil {
		err = p.write(fresh)
	}
	if err != nil {
		return fresh, err
	}
	p.vos[vo] = fresh
	return old, nil
}

// begin makes the VO's changes be noted from now on.
func (p *Publisher) begin(vo xos.VOName) (*sync.Mutex, *published) {
	p.mu.Lock()
	whole := p.whole[vo]
	if whole == nil {
		whole = new(sync.Mutex)
		p.whole[vo] = whole
	}
	p.mu.Unlock()
	whole.Lock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making++
	old := p.vos[vo]
	if old != nil {
		old.taking, old.asked = map[string]*SnapshotUser{}, true
	}
	return whole, old
}

// prepare writes the base of a VO that is large enough for one.
func (p *Publisher) prepare(vo xos.VOName, collect func() (Whole, error)) (*published, error) {
	w, err := collect()
	if err != nil {
		return nil, err
	}
	lists, err := w.rosters()
	if err != nil {
		return nil, err
	}
	fresh := &published{vo: vo, gid: w.GID, lists: lists, since: map[string]change{}, ids: map[uint32]string{}}
	if w.Len < small {
		w.enroll(lists)
		for i := range w.Len {
			user := w.User(i)
			u := &user
			if err := u.check(vo); err != nil {
				return nil, err
			}
			_, twice := fresh.since[u.Name]
			if err := fresh.isFree(u); err != nil || twice {
				return nil, xos.Errorf(xos.Conflict, "snapshot of %s: %s is there twice, or the id %d: %w", vo, u.Name, u.UID, err)
			}
			fresh.since[u.Name], fresh.ids[u.UID] = change{user: u}, u.Name
		}
		return fresh, nil
	}
	p.mu.Lock()
	generation := p.generation()
	p.mu.Unlock()
	path, size := basePath(p.dir, vo, generation), 0
	fill := func(f *os.File) error { size, err = w.write(f, generation, lists); return err }
	if err := place(path, vo, w.GID, fill, func() {}); err != nil {
		return nil, err
	}
	if fresh.file, err = os.Open(path); err == nil {
		fresh.base, err = readSnapshot(fresh.file, int64(size), vo)
	}
	if err != nil {
		os.Remove(path)
		return nil, xos.Errorf(xos.Internal, "reading the snapshot of %s: %w", vo, err)
	}
	fresh.based = generation
	for _, r := range lists {
		r.changed = false
	}
	return fresh, nil
}

// Change publishes what a VO's snapshot shall say of one name now, nil:
// nothing. It is xos.NotFound if the VO is not published, or does not have the
// user's groups, and xos.TooLarge after too many changes; Publish helps then.
// If due, Publish shall be called soon, which makes changes cheap again.
func (p *Publisher) Change(vo xos.VOName, name string, state func() (*SnapshotUser, error)) (due bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.vos[vo]
	if v == nil {
		return false, xos.Errorf(xos.NotFound, "%s is not published", vo)
	}
	if len(v.since) >= mostSince {
		return false, xos.Errorf(xos.TooLarge, "the snapshot of %s has %d changes", vo, len(v.since))
	}
	u, err := state()
	if err != nil {
		return false, err
	}
	if !v.hasGroups(u) {
		return false, xos.Errorf(xos.NotFound, "the snapshot of %s does not have all groups of %s", vo, name)
	}
	if err := v.set(name, u); err != nil {
		return false, err
	}
	if err := p.write(v); err != nil {
		return false, err // the next change publishes it
	}
	due = v.isDue() && !v.asked
	v.asked = v.asked || due
	return due, nil
}

func (p *Publisher) write(v *published) error {
	b, err := v.head(p.generation())
	if err != nil {
		return err
	}
	v.size = len(b)
	return writeHead(p.dir, v.vo, v.gid, b)
}

// Retain takes back all VOs but these, and removes what writes that were cut
// short have left.
func (p *Publisher) Retain(keep map[xos.VOName]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return xos.Errorf(xos.Internal, "reading the snapshots: %w", err)
	}
	var gone []*published
	named := map[string]bool{} // bases
	for vo, v := range p.vos {
		if !keep[vo] {
			delete(p.vos, vo)
			gone = append(gone, v)
		} else if v.file != nil {
			named[filepath.Base(v.file.Name())] = true
		}
	}
	var rest []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".snap")
		vo, ok2 := strings.CutPrefix(name, "vo-")
		switch {
		case !ok || !ok2:
			rest = append(rest, e.Name())
		case !keep[xos.VOName(vo)]:
			err = errors.Join(err, RemoveSnapshot(p.dir, xos.VOName(vo)))
		}
	}
	for _, v := range gone { // whose heads are gone, unless that failed
		if err == nil {
			v.drop()
		} else {
			v.close()
		}
	}
	for _, name := range rest { // the same of bases that are another publisher's
		if err == nil && p.making == 0 && !named[name] {
			os.Remove(filepath.Join(p.dir, name))
		}
	}
	return err
}
