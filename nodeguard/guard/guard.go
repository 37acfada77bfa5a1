// Package guard implements nodeguard on cgroup version 2, mount namespaces,
// cgroup BPF (level C) and BPF LSM programs (level A; LSM: Linux security
// modules, the kernel's checks). What this kernel and machine lack is found by
// trying it, at New and again while it runs, and told by Level.
//
// A grid uid belongs to one account and so to one VO, and so do the cgroups of
// its logins and of jobs: these are the labels by which the BPF programs know a
// process. They survive exec, fork and unshare, and need no file name and no
// pid.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session/process"
)

// Config says where the guard works.
type Config struct {
	// CgroupRoot is the mount point of cgroup version 2; "" finds it.
	CgroupRoot string
	// Subtree is the cgroup below the root under which the VOs' cgroups are
	// made; "" is "xos".
	Subtree string
	// NetworkCgroup is the cgroup, relative to the root, whose processes the
	// network programs see; "" is the root: the whole machine.
	NetworkCgroup string
	// PinDir keeps the network programs and their maps in force when xos-node
	// dies, below a bpffs; "" is "/sys/fs/bpf/xos".
	PinDir string
	// Run has the namespaces' pins and the VOs' records of logins; "" is
	// "/run/xos".
	Run string
	// Scratch are directories in which everybody may write, and of which each
	// VO's sessions have their own; nil is /tmp and /var/tmp.
	Scratch []string
	// Homes is the directory of homes, of which a session sees its VO's only;
	// "" leaves them alone.
	Homes string
	// JobCeilings bound the jobs of each VO together, LoginCeilings the sessions
	// of each account.
	JobCeilings, LoginCeilings Ceilings
}

// Guard implements nodeguard.Guard.
type Guard struct {
	log     *slog.Logger
	run     string
	homes   string
	scratch []string
	cgroups cgroups
	logins  logins
	ofVO    Ceilings // what the site lets each VO's jobs use
	network *network // nil if this machine cannot
	lsm     *lsm     // the same
	labels  *labels
	meter   *meter // nil if this machine cannot

	testing    sync.Mutex // the programs know one probe at a time
	freezing   sync.Mutex // the records of what is stopped
	turns      turns      // of what is known by a uid
	looks      process.Looks
	mu         sync.Mutex
	namespaces map[xos.VOName]*os.File
	features   []nodeguard.Feature
	level      nodeguard.Level

	policing sync.Mutex // of what follows
	policies policies
}

var _ nodeguard.Guard = (*Guard)(nil)

// New probes this machine and puts the BPF programs in force. It fails
// only where not even cgroups are there to be used; anything else lowers the
// level.
func New(cfg Config, log *slog.Logger) (*Guard, error) {
	root, err := findRoot(cfg.CgroupRoot)
	if err != nil {
		return nil, err
	}
	if cfg.Subtree == "" {
		cfg.Subtree = "xos"
	}
	if cfg.PinDir == "" {
		cfg.PinDir = "/sys/fs/bpf/xos"
	}
	if cfg.Scratch == nil {
		cfg.Scratch = []string{"/tmp", "/var/tmp"}
	}
	if cfg.Run == "" {
		cfg.Run = "/run/xos"
	}
	if err := os.MkdirAll(cfg.Run, 0o755); err != nil {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", cfg.Run, err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Run, ipcFile), nil, 0o600); err != nil {
		return nil, xos.Errorf(xos.Internal, "making a place for IPC namespaces: %w", err)
	}
	g := &Guard{log: log, run: cfg.Run, homes: cfg.Homes, scratch: cfg.Scratch, cgroups: cgroups{root: root, subtree: cfg.Subtree}, ofVO: cfg.JobCeilings,
		logins: lookForLogins(root, cfg.LoginCeilings), namespaces: map[xos.VOName]*os.File{}}
	g.note("cgroup", g.cgroups.prepare())
	for _, c := range wantedControllers {
		g.note("controller "+c, g.cgroups.controller(c))
	}
	g.note("limits of logins", g.logins.have)
	g.note("hidepid", g.probeNamespace())
	taken := whole(cfg.PinDir)
	// Reading the kernel's types takes longer than loading a program that wants them.
	types := btf.NewCache()
	depth, unknown := depthOfVOs(filepath.Join(root, cfg.Subtree), types)
	g.network, err = loadNetwork(filepath.Join(root, cfg.NetworkCgroup), cfg.PinDir, belowVO(depth), types)
	if err == nil {
		g.labels, err = newLabels(g.network, root, cfg.Subtree, cfg.PinDir)
	}
	if err == nil {
		err = g.network.fire()
	}
	g.note("network", err)
	g.note("devices", g.network.fireDevices())
	if unknown == nil {
		g.startMeter(cfg, depth, types)
	} else {
		g.note("accounting", unknown)
	}
	if g.labels != nil {
		g.startLSM(cfg.PinDir, taken && !g.network.anew, types)
	}
	g.level = conclude(g.features)
	return g, nil
}

// startLSM labels the cgroups that are there, and puts the LSM programs in force.
func (g *Guard) startLSM(pinDir string, taken bool, types *btf.Cache) {
	var used *ebpf.Map
	if g.meter != nil {
		used = g.meter.used
	}
	l, err := newLSM(g.network, used, pinDir)
	if err != nil {
		g.note("lsm", err)
		return
	}
	// The programs of a predecessor may go when these come: these must know by
	// then what those knew.
	labelled := errors.Join(g.labels.useMaps(l.maps[bpf.LsmMapVoOfCgroup], l.maps[bpf.LsmMapLsmTallies], l.maps[bpf.LsmMapLabelChanges]), fillLists(l.maps[bpf.LsmMapSocketLists]))
	if err := l.start(taken, types); err != nil {
		g.labels.useNone()
		l.close()
		g.note("lsm", err)
		return
	}
	g.lsm = l
	g.note("lsm", labelled)
	g.features = append(g.features, l.probe()...)
}

// startMeter puts the accounting programs in force. Nothing is decided by them:
// the level does not depend on it.
func (g *Guard) startMeter(cfg Config, depth uint32, types *btf.Cache) {
	root := g.cgroups.root
	jobs, all, logins := filepath.Join(root, cfg.Subtree), filepath.Join(root, cfg.NetworkCgroup), filepath.Join(root, "user.slice")
	if cfg.NetworkCgroup != "" {
		logins = all
	}
	if !exists(logins) || strings.HasPrefix(logins+"/", jobs+"/") {
		logins = "" // none, or seen with the jobs
	}
	var err error
	g.meter, err = newMeter(jobs, logins, all, cfg.PinDir, depth, types, g.log)
	g.note("accounting", err)
	if err == nil {
		g.note("accounting of opens", g.meter.opens)
	}
}

// Login implements nodeguard.Guard: from now on the uid's sockets are its VO's,
// and its sessions are bounded.
func (g *Guard) Login(ctx context.Context, a xos.Account, uid uint32) error {
	if err := g.homesOf(a.VO); err != nil {
		g.log.Warn("homes are not kept apart", "vo", a.VO, "error", err)
	}
	defer g.turns.of(uid)()
	if err := g.logins.bound(ctx, uid); err != nil {
		return err
	}
	if g.labels != nil { // else Level says so; a policy may demand more
		if err := g.labels.user(uid, a); err != nil {
			return err
		}
	}
	if g.meter != nil {
		return g.meter.user(uid, a)
	}
	return nil
}

// JobCgroup implements nodeguard.Guard.
func (g *Guard) JobCgroup(_ context.Context, a xos.Account, job xos.JobID) (string, error) {
	most, err := g.ceilingsOf(a.VO)
	if err != nil {
		return "", err
	}
	path, err := g.cgroups.make(a.VO, job, most)
	if err == nil && g.labels != nil {
		err = g.labels.job(path, a.VO, job)
	}
	if err == nil && g.meter != nil {
		err = g.meter.job(filepath.Join(g.cgroups.root, path), a.VO, job)
	}
	return path, err
}

// RemoveJob implements nodeguard.Guard.
func (g *Guard) RemoveJob(ctx context.Context, a xos.Account, job xos.JobID) error {
	if err := g.cgroups.remove(ctx, a.VO, job); err != nil || g.meter == nil {
		return err
	}
	return g.meter.forget(a.VO, job)
}

// Close gives up the descriptors; what is in force stays in force.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for vo, f := range g.namespaces {
		f.Close()
		delete(g.namespaces, vo)
	}
	var errs []error
	if g.lsm != nil {
		errs = append(errs, g.lsm.close())
	}
	if g.labels != nil {
		errs = append(errs, g.labels.close())
	}
	if g.network != nil {
		errs = append(errs, g.network.close())
	}
	if g.meter != nil {
		errs = append(errs, g.meter.close())
	}
	return errors.Join(errs...)
}
