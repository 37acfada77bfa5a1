package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// arm is what confines the work, or does not.
type arm string

const (
	none     arm = "none"     // nothing: what the others are compared with
	empty    arm = "empty"    // a program that only allows at each hook of the guard's LSM programs
	guarded  arm = "guard"    // the guard, which allows all that is done here, or refuses it all
	audited  arm = "audited"  // the same, and what it refuses is written to a log
	landlock arm = "landlock" // a Landlock ruleset that allows the same
	apparmor arm = "apparmor" // an AppArmor profile that allows the same
)

// every is all of them, in the order in which they take turns.
var every = []arm{none, empty, guarded, audited, landlock, apparmor}

// choose gives the named ones, and none.
func choose(names string) ([]arm, error) {
	chosen := []arm{none}
	for name := range strings.SplitSeq(names, ",") {
		if !slices.Contains(every, arm(name)) {
			return nil, xos.Errorf(xos.Invalid, "no arm %q: there are %v", name, every)
		}
		chosen = append(chosen, arm(name))
	}
	return slices.DeleteFunc(slices.Clone(every), func(a arm) bool { return !slices.Contains(chosen, a) }), nil
}

// turns is a round: there and back, so that what drifts meets all alike.
func turns(arms []arm) []arm {
	back := slices.Clone(arms)
	slices.Reverse(back)
	return slices.Concat(arms, back)
}

// profile allows what the loads do, by rules that have to be looked through.
const profile = `profile guardcost {
  network,
  unix,
  signal,
  capability,
  /** r,
  /{,usr/}{,local/}{,s}bin/** mrix,
  /{,usr/}lib/** mrix,
  %s/** mrwkix,
  /tmp/** rwk,
  /dev/{null,zero,urandom} rw,
  /proc/** rw,
}
`

// stage is where the work is done: a directory, and the job's cgroup of a VO.
type stage struct {
	dir     string
	cfg     guard.Config
	account xos.Account
	level   nodeguard.Level
	guards  map[string]*ebpf.ProgramSpec // its LSM programs
	noEmpty error                        // why this kernel has no empty programs
}

// has reports whether this machine has what an arm needs, with the reason.
func (s stage) has(a arm) error {
	switch a {
	case empty:
		return s.noEmpty
	case landlock:
		_, err := landlockABI()
		return err
	case apparmor:
		if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || strings.TrimSpace(string(on)) != "Y" {
			return errors.New("the kernel has no AppArmor in force")
		}
		for _, command := range []string{"apparmor_parser", "aa-exec"} {
			if _, err := exec.LookPath(command); err != nil {
				return fmt.Errorf("%w (Debian package apparmor)", err)
			}
		}
	}
	return nil
}

// begin brings an arm into force; end takes it away. The job's cgroup, which is
// the same in all, is given open.
func (s stage) begin(a arm) (cgroup *os.File, end func() error, err error) {
	g, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	var ends []io.Closer
	undo := func() error {
		var errs []error
		for _, c := range ends {
			errs = append(errs, c.Close())
		}
		return errors.Join(append(errs, os.RemoveAll(s.cfg.PinDir), settled(prefix))...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	ends = append(ends, g)
	if err := g.Login(context.Background(), s.account, user); err != nil {
		return nil, nil, err
	}
	if err := s.admitOther(g); err != nil {
		return nil, nil, err
	}
	path, err := g.JobCgroup(context.Background(), s.account, "bench")
	if err != nil {
		return nil, nil, err
	}
	if cgroup, err = os.Open(filepath.Join(s.cfg.CgroupRoot, path)); err != nil {
		return nil, nil, err
	}
	ends = append(ends, cgroup)
	switch a {
	case guarded:
		return cgroup, undo, nil
	case audited:
		record, err := s.record(g)
		if err == nil {
			ends = append([]io.Closer{record}, ends...)
		}
		return cgroup, undo, err
	}
	ends = ends[1:]
	if err := errors.Join(g.Close(), os.RemoveAll(s.cfg.PinDir), settled(prefix)); err != nil {
		return nil, nil, err
	}
	switch a {
	case empty:
		var e *empties
		if e, err = attachEmpty(s.guards); err == nil {
			ends = append(ends, e)
		}
	case apparmor:
		load := exec.Command("apparmor_parser", "--replace", "--skip-cache")
		load.Stdin, load.Stderr = strings.NewReader(fmt.Sprintf(profile, s.dir)), os.Stderr
		if err = load.Run(); err == nil {
			ends = append(ends, loaded{})
		}
	}
	return cgroup, undo, err
}

// recording is a guard that writes what it refuses to a log of decisions.
type recording struct {
	log   *audit.Log
	stop  context.CancelFunc
	ended chan error
}

func (s stage) record(g *guard.Guard) (*recording, error) {
	log, err := audit.Open(filepath.Join(s.dir, "decisions"))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &recording{log, stop, make(chan error, 1)}
	go func() { r.ended <- g.Run(ctx, log, nil) }()
	return r, nil
}

// Close has it write the rest.
func (r *recording) Close() error {
	r.stop()
	return errors.Join(<-r.ended, r.log.Close())
}

// loaded is the AppArmor profile in the kernel.
type loaded struct{}

// Close takes it out again.
func (loaded) Close() error {
	return os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte("guardcost"), 0)
}

// prefix is how the names of all the guard's programs begin, and the empty ones'.
const prefix = "xos_"

// settled waits until the kernel has let go of all programs named so.
func settled(prefix string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		there, err := remains(prefix)
		if err != nil || there == "" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("program %s is still there", there)
		}
	}
}

// remains gives the name of one of them that the kernel has.
func remains(prefix string) (there string, err error) {
	err = each(prefix, func(name string, _ *ebpf.Program) error { there = name; return nil })
	return there, err
}

// each does something with all programs named so that the kernel has.
func each(prefix string, do func(name string, p *ebpf.Program) error) error {
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		info, err := p.Info()
		if err == nil && strings.HasPrefix(info.Name, prefix) {
			err = do(info.Name, p)
		}
		p.Close()
		if err != nil {
			return err
		}
	}
}

// command is the worker's, confined as the arm wants it.
func (a arm) command(self string, args ...string) *exec.Cmd {
	switch a {
	case landlock:
		args = append([]string{"-landlock"}, args...)
	case apparmor:
		return exec.Command("aa-exec", append([]string{"-p", "guardcost", "--", self}, args...)...)
	}
	return exec.Command(self, args...)
}

// landlockABI is the version of Landlock that the kernel has.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, fmt.Errorf("the kernel has no Landlock: %w", errno)
	}
	return int(abi), nil
}
