package guard

import (
	"context"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
)

var _ nodeguard.Attendant = (*Guard)(nil)

// Stay implements nodeguard.Attendant.
func (g *Guard) Stay(_ context.Context, a xos.Account, uid uint32) (nodeguard.Stay, error) {
	var s nodeguard.Stay
	dir := g.sliceOf(uid)
	if id, err := cgroupID(dir); err == nil {
		s.Cgroup = id
	}
	var cpu, counted bool
	var err error
	if s.Used, cpu, counted, err = g.usedOf(bpf.AccountXosKindXOS_OF_USER, a.VO, string(a.User), dir); err != nil {
		return s, err
	}
	if !cpu && !counted {
		return s, xos.Errorf(xos.NotFound, "nothing is known of what the sessions of %s use", a)
	}
	if now, err := cgroupID(dir); s.Cgroup != 0 && (err != nil || now != s.Cgroup) {
		// It ended meanwhile: what was read of it may be another's.
		return nodeguard.Stay{}, xos.Errorf(xos.Unavailable, "the sessions of %s are just ending", a)
	}
	return s, nil
}

// Arrive implements nodeguard.Attendant.
func (g *Guard) Arrive(a xos.Account, uid uint32) error {
	if g.meter == nil {
		return xos.Errorf(xos.NotSupported, "this machine does not count what is used")
	}
	if err := g.meter.user(uid, a); err != nil {
		return err
	}
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return xos.Errorf(xos.Internal, "counting processors: %w", err)
	}
	who := bpf.AccountXosWho{Kind: uint32(bpf.AccountXosKindXOS_OF_USER), Id: uint64(uid)}
	none := make([]bpf.AccountXosUsed, n)
	if err := enter(func() error { return g.meter.used.Put(who, none) }); err != nil {
		return xos.Errorf(xos.Unavailable, "beginning anew to count what %s uses: %w", a, err)
	}
	g.meter.mu.Lock()
	defer g.meter.mu.Unlock()
	return g.meter.places.empty(who)
}

// sliceOf is where systemd keeps the processes of a uid's logins.
func (g *Guard) sliceOf(uid uint32) string {
	return filepath.Join(g.cgroups.root, "user.slice", "user-"+strconv.FormatUint(uint64(uid), 10)+".slice")
}
