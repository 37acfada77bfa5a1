package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// meter is the programs of bpf/account.c, and whom their figures are of. The
// figures outlive this process, and go on without it.
type meter struct {
	log    *slog.Logger
	pinDir string    // "" without a bpffs
	used   *ebpf.Map // figures
	places places    // where packets and opened files are counted beside
	owners *ebpf.Map // who's they are; the programs do not look there
	links  []link.Link
	opens  error // why nobody counts opened files

	mu   sync.Mutex
	whos map[owner]bpf.AccountXosWho
}

// owner is a VO, a user of it or a job of it, as its map keeps it.
type owner struct {
	Kind uint32
	VO   [xos.MaxName]byte
	Name [maxOwner]byte // the user or job
}

// maxOwner is the longest name of a user or job here.
const maxOwner = 64

func ownerOf(kind bpf.AccountXosKind, vo xos.VOName, name string) (o owner, err error) {
	if len(vo) > len(o.VO) || len(name) > len(o.Name) {
		return o, xos.Errorf(xos.Invalid, "no figures for %.80q of VO %.80q: the name is too long", name, vo)
	}
	o.Kind = uint32(kind)
	copy(o.VO[:], vo)
	copy(o.Name[:], name)
	return o, nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// maxFigures is for how many jobs, VOs and users there may be figures at once.
const maxFigures = 65536

// figureMaps are what a successor takes over.
var figureMaps = []string{bpf.AccountMapUsed, "owner_of_used", bpf.AccountMapPlaces}

// newMeter puts the programs in force, or takes over a predecessor's. jobs and
// logins are the cgroups whose sockets are counted, all the one where refused
// connections are, depth that of the VOs' cgroups, types the kernel's.
func newMeter(jobs, logins, all, pinDir string, depth uint32, types *btf.Cache, log *slog.Logger) (*meter, error) {
	spec, err := bpf.LoadAccount()
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the accounting programs: %w", err)
	}
	if err := spec.Variables["base"].Set(depth - uint32(bpfVODepth)); err != nil {
		return nil, xos.Errorf(xos.Internal, "telling the accounting programs where they are: %w", err)
	}
	m := &meter{log: log, whos: map[owner]bpf.AccountXosWho{}, places: places{left: map[uint32]time.Time{}}}
	if preparePins(pinDir) == nil {
		m.pinDir = pinDir
	}
	taken, err := m.makeMaps(spec)
	if err == nil {
		err = m.attach(spec, jobs, logins, all, taken, types)
	}
	if err == nil {
		err = m.recall()
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// bpfVODepth is XOS_ACCOUNT_VO of bpf/account.h.
const bpfVODepth = 2

// belowVO is the depth of jobs' cgroups, 0 if that of their VO's is not known.
func belowVO(depth uint32) uint32 {
	if depth == 0 {
		return 0
	}
	return depth + 1
}

// depthOfVOs tells how deep a cgroup in dir is in the kernel's own view, which
// a container's file system does not show. It proves that tracepoints fire.
func depthOfVOs(dir string, types *btf.Cache) (depth uint32, err error) {
	spec, err := bpf.LoadAccount()
	if err != nil {
		return 0, xos.Errorf(xos.Internal, "reading the accounting programs: %w", err)
	}
	c, err := ebpf.NewCollectionWithOptions(only(spec, "xos_depth"), ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return 0, xos.Errorf(xos.NotSupported, "this kernel refuses the accounting programs: %w", err)
	}
	defer c.Close()
	at, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "cgroup_mkdir", Program: c.Programs["xos_depth"]})
	if err != nil {
		return 0, xos.Errorf(xos.NotSupported, "attaching to a tracepoint: %w", err)
	}
	defer at.Close()
	made, err := os.MkdirTemp(dir, "depth-")
	if err != nil {
		return 0, xos.Errorf(xos.NotSupported, "making a cgroup: %w", err)
	}
	defer unix.Rmdir(made)
	id, err := cgroupID(made)
	if err != nil {
		return 0, err
	}
	if err := c.Maps[bpf.AccountMapDepths].Lookup(id, &depth); err != nil || depth < bpfVODepth {
		return 0, xos.Errorf(xos.NotSupported, "the tracepoint of new cgroups does not tell of %s (depth %d, %w)", made, depth, err)
	}
	return depth, nil
}

// only is one program with the maps it may need.
func only(spec *ebpf.CollectionSpec, program string) *ebpf.CollectionSpec {
	one := spec.Copy()
	for name := range one.Programs {
		if name != program {
			delete(one.Programs, name)
		}
	}
	return one
}

// makeMaps makes the maps, or takes over a predecessor's if their layout is
// this one's.
func (m *meter) makeMaps(spec *ebpf.CollectionSpec) (taken bool, err error) {
	specs := map[string]*ebpf.MapSpec{
		figureMaps[0]: spec.Maps[figureMaps[0]].Copy(),
		figureMaps[1]: {Name: figureMaps[1], Type: ebpf.Hash, KeySize: 16, ValueSize: 4 + xos.MaxName + maxOwner, MaxEntries: maxFigures, Flags: unix.BPF_F_NO_PREALLOC},
		figureMaps[2]: spec.Maps[figureMaps[2]].Copy(),
	}
	if m.pinDir != "" && os.Remove(filepath.Join(m.pinDir, "traffic")) == nil {
		os.Remove(filepath.Join(m.pinDir, figureMaps[2])) // an earlier version came between, which knew of none
	}
	taken = m.pinDir != "" && exists(filepath.Join(m.pinDir, figureMaps[0])) && exists(filepath.Join(m.pinDir, figureMaps[1]))
	for _, at := range []struct {
		name string
		to   **ebpf.Map
	}{{figureMaps[0], &m.used}, {figureMaps[1], &m.owners}, {figureMaps[2], &m.places.m}} {
		var opts ebpf.MapOptions
		if m.pinDir != "" {
			specs[at.name].Pinning, opts.PinPath = ebpf.PinByName, m.pinDir
		}
		*at.to, err = ebpf.NewMapWithOptions(specs[at.name], opts)
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			taken = taken && at.name == figureMaps[2] // packets and opened files only
			os.Remove(filepath.Join(m.pinDir, at.name))
			*at.to, err = ebpf.NewMapWithOptions(specs[at.name], opts)
		}
		if err != nil {
			return false, xos.Errorf(xos.NotSupported, "this kernel refuses the accounting programs' maps: %w", err)
		}
	}
	return taken, nil
}

// recall finds out whose the figures are that a predecessor made.
func (m *meter) recall() error {
	var who bpf.AccountXosWho
	var of owner
	all := m.owners.Iterate()
	for all.Next(&who, &of) {
		m.whos[of] = who
	}
	if err := all.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "listing whose figures there are: %w", err)
	}
	return m.places.settle(m.whos)
}

// close gives up descriptors; what is pinned goes on.
func (m *meter) close() error {
	var errs []error
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	for _, of := range []*ebpf.Map{m.used, m.owners, m.places.m} {
		if of != nil {
			errs = append(errs, of.Close())
		}
	}
	return errors.Join(errs...)
}

func (o owner) String() string { return fmt.Sprint(o.Kind, " ", text(o.VO[:]), "/", text(o.Name[:])) }
