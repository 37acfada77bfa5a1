package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
)

// What is kept by uid has room for 65,536 of them, and a machine sees more in its
// time. So a uid that is free is forgotten: the label last, since by it a
// successor finds what a kill has left to do.

// turns has those who change what is known of one uid take turns, and seldom
// holds up others.
type turns [1024]sync.Mutex

// of waits for the uid's turn; the caller ends it.
func (t *turns) of(uid uint32) (end func()) {
	m := &t[uid%uint32(len(t))]
	m.Lock()
	return m.Unlock
}

// Labelled implements nodeguard.Guard.
func (g *Guard) Labelled(context.Context) ([]uint32, error) {
	var uids []uint32
	if g.labels != nil {
		var err error
		if uids, err = g.labels.labelled(); err != nil {
			return nil, err
		}
	}
	if g.meter != nil {
		for uid := range g.meter.users() {
			uids = append(uids, uint32(uid))
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// LoginsUsed implements nodeguard.Guard.
func (g *Guard) LoginsUsed(_ context.Context, uid uint32) (nodeguard.Used, error) {
	none := xos.Errorf(xos.NotFound, "nothing is known of what uid %d uses", uid)
	if g.meter == nil {
		return nodeguard.Used{}, none
	}
	n, ok, err := g.meter.sum(ofUser(uid))
	if err == nil && !ok {
		err = none
	}
	return nodeguard.Used{NetIn: n.NetIn, NetOut: n.NetOut, Execs: n.Execs, Opens: n.Opens, Refused: n.Refused}, err
}

// Rest implements nodeguard.Guard.
func (g *Guard) Rest(_ context.Context, uid uint32, resting func() bool) error {
	defer g.turns.of(uid)()
	if uid < session.FirstID || uid > session.LastID || !resting() {
		return nil
	}
	return unbound(uid)
}

// unbound removes what systemd keeps in /run of what bounds a user's slice. It
// has the slice itself no more, when no process has been in it for a while, and so
// need not be told.
func unbound(uid uint32) error {
	dir := fmt.Sprintf("/run/systemd/system.control/user-%d.slice.d", uid)
	files, err := filepath.Glob(filepath.Join(dir, "50-*.conf"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	if rerr := os.Remove(dir); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return xos.Errorf(xos.Internal, "taking away what bounds the sessions of uid %d: %w", uid, err)
	}
	return nil
}

// Forget implements nodeguard.Guard.
func (g *Guard) Forget(_ context.Context, uid uint32, free func() bool) error {
	if uid < session.FirstID || uid > session.LastID {
		return xos.Errorf(xos.Invalid, "uid %d is no grid user's", uid)
	}
	defer g.turns.of(uid)()
	if !free() {
		return xos.Errorf(xos.Conflict, "uid %d is somebody's", uid)
	}
	if err := unbound(uid); err != nil {
		return err
	}
	if err := os.Remove(g.frozenFile(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return xos.Errorf(xos.Internal, "forgetting what was stopped: %w", err)
	}
	if g.meter != nil {
		if err := g.meter.forgetUser(uid); err != nil {
			return err
		}
	}
	if g.labels == nil {
		return nil
	}
	return g.labels.forgetUser(uid)
}

func ofUser(uid uint32) bpf.AccountXosWho {
	return bpf.AccountXosWho{Kind: uint32(bpf.AccountXosKindXOS_OF_USER), Id: uint64(uid)}
}

// forgetUser drops the figures of a uid.
func (m *meter) forgetUser(uid uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var of owner
	if err := m.owners.Lookup(ofUser(uid), &of); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return xos.Errorf(xos.Unavailable, "looking up whose figures uid %d's are: %w", uid, err)
	}
	return m.drop(of, ofUser(uid))
}

// forgetUser takes a uid's label away, after that of its logins' cgroup.
func (l *labels) forgetUser(uid uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := filepath.Join(l.slicesDir(), "user-"+strconv.FormatUint(uint64(uid), 10)+".slice")
	return l.change(func() error {
		if id, ok := l.slices[dir]; ok && l.cgroups != nil {
			if err := l.cgroups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return xos.Errorf(xos.Unavailable, "forgetting cgroup %s: %w", dir, err)
			}
		}
		delete(l.slices, dir)
		delete(l.accounts, uid)
		if err := l.uids.Delete(uid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return xos.Errorf(xos.Unavailable, "forgetting uid %d: %w", uid, err)
		}
		return nil
	})
}

// labelled gives all uids that have a label.
func (l *labels) labelled() (uids []uint32, err error) {
	for range 5 { // it begins anew when entries go while they are listed
		var uid, vo uint32
		uids = uids[:0]
		all := l.uids.Iterate()
		for all.Next(&uid, &vo) {
			uids = append(uids, uid)
		}
		if err = all.Err(); !errors.Is(err, ebpf.ErrIterationAborted) {
			break
		}
	}
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listing labelled uids: %w", err)
	}
	return uids, nil
}
