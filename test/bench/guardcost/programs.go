package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// ran is how often a program ran, and how long in all.
type ran struct {
	times uint64
	took  time.Duration
}

// programs says which of the guard's programs each act of the user runs, and how
// long one takes, by the kernel's own statistics. To take these takes time too, which
// is in it: what an empty program seems to take.
func (s stage) programs(arms []arm, w io.Writer) error {
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return xos.Errorf(xos.NotSupported, "this kernel does not say how long programs run: %w", err)
	}
	defer counting.Close()
	var acts []act
	if err := within(s.dir, func() (err error) { acts, err = prepare(); return err }); err != nil {
		return err
	}
	for _, a := range arms {
		if a != empty && a != guarded {
			continue // they have no programs
		}
		if err := s.programsOf(a, acts, w); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

func (s stage) programsOf(a arm, acts []act, w io.Writer) (err error) {
	cgroup, end, err := s.begin(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	for _, act := range acts {
		times := 40 * act.batch
		// What the worker itself runs, before and after, is none of the act's.
		before, err := s.during(attr, act.name, 0)
		if err != nil {
			return err
		}
		with, err := s.during(attr, act.name, times)
		if err != nil {
			return err
		}
		sum := 0.0
		var parts []string
		for name, of := range with {
			n := float64(of.times-before[name].times) / float64(times)
			if of.times <= before[name].times || n < 0.5 {
				continue
			}
			each := float64(of.took-before[name].took) / float64(of.times-before[name].times)
			sum += n * each
			parts = append(parts, fmt.Sprintf("%.1f %s of %.0f ns", n, name, each))
		}
		slices.Sort(parts)
		fmt.Fprintf(w, "# %s under %s runs %s\nBENCH guard_%s_%s_programs %.0f ns\n", act.name, a, strings.Join(parts, ", "), act.name, a, sum)
	}
	return nil
}

// during says what each program ran while a worker did an act so many times.
func (s stage) during(attr *syscall.SysProcAttr, act string, times int) (map[string]ran, error) {
	before, err := running()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.worker(), "-act", act, "-times", strconv.Itoa(times))
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = s.home("user"), attr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	after, err := running()
	for name, of := range after {
		after[name] = ran{of.times - before[name].times, of.took - before[name].took}
	}
	return after, err
}

// running is what the kernel says of the guard's programs, and of empty ones. Those of
// one name are added.
func running() (map[string]ran, error) {
	all := map[string]ran{}
	err := each(prefix, func(name string, p *ebpf.Program) error {
		st, err := p.Stats()
		if err == nil {
			all[name] = ran{all[name].times + st.RunCount, all[name].took + st.Runtime}
		}
		return err
	})
	return all, err
}

// repeat is a worker that does one act so many times.
func repeat(name string, times int) error {
	acts, err := prepare()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(acts, func(a act) bool { return a.name == name })
	if i < 0 {
		return xos.Errorf(xos.Invalid, "no act %q", name)
	}
	for range times {
		if err := acts[i].do(); err != nil {
			return err
		}
	}
	return nil
}
