// Guardcost measures what the guard costs those whom it confines, beside what
// AppArmor and Landlock cost for the same: run it as root on a machine where
// xos-node does not run and its pins are not there. A grid user in a job's
// cgroup does what her VO allows her, on files of her own, under each arm:
// nothing, a program that only allows at each hook of the guard's LSM programs,
// the guard with all its programs, the same with a log of decisions, a Landlock ruleset,
// an AppArmor profile. The arms take turns, there and back, so that what drifts meets all
// alike; medians are compared. What the machine's own root pays is measured for the first
// four. With -refused the same is tried on what is another VO's, which the guard refuses.
//
//	# stat runs 2.0 LSM programs: inode_getattr 1.0, inode_permission 1.0
//	BENCH guard_stat_user_none 412 ns
//	BENCH guard_stat_user_empty_ratio 1.03 x
//	BENCH guard_stat_user_guard_ratio 1.04 x
//	BENCH guard_stat_user_guard_above_empty 0.01 x
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
)

// perBlock is how often a worker measures each act, each for a slice.
const perBlock = 3

const user = session.FirstID + 4711

// flags are the worker's, and of the whole.
type flags struct {
	slice                           time.Duration
	rounds                          int
	worker, loads, nothing, confine bool
	calls, whole, programs          bool
	refused, stand                  bool
	arms, act, mark                 string
	times                           int
}

func main() {
	var f flags
	flag.DurationVar(&f.slice, "slice", 30*time.Millisecond, "how long one run of one act takes")
	flag.IntVar(&f.rounds, "rounds", 10, "how often the arms take turns, there and back")
	flag.BoolVar(&f.calls, "calls", false, "compare single calls alone, which takes a tenth of the time")
	flag.BoolVar(&f.whole, "work", false, "compare whole work alone")
	flag.StringVar(&f.arms, "arms", "empty,guard,audited,landlock,apparmor", "which are compared with none")
	flag.BoolVar(&f.programs, "programs", false, "only say which programs each call runs, and how long one takes by the kernel's statistics")
	flag.StringVar(&f.act, "act", "", "only do this call, -times")
	flag.IntVar(&f.times, "times", 1, "how often, with -act")
	flag.BoolVar(&f.worker, "worker", false, "only measure, and print JSON")
	flag.BoolVar(&f.loads, "loads", false, "with -worker: whole work instead of single calls")
	flag.BoolVar(&f.refused, "refused", false, "compare calls that the guard refuses: on what is another VO's")
	flag.StringVar(&f.mark, "mark", "", "with -worker: what is another VO's, as -stand prints it")
	flag.BoolVar(&f.stand, "stand", false, "be another VO's process")
	flag.BoolVar(&f.confine, "landlock", false, "with -worker: confined by Landlock")
	flag.BoolVar(&f.nothing, "nothing", false, "end at once")
	flag.Parse()
	var err error
	switch {
	case f.nothing:
	case f.stand:
		err = stand()
	case f.act != "":
		err = repeat(f.act, f.times)
	case f.confine:
		err = confined()
	case f.loads:
		err = carry()
	case f.worker:
		err = work(f)
	default:
		err = compare(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guardcost:", err)
		os.Exit(1)
	}
}

// confined begins this program anew under Landlock, which is a thread's own.
func confined() error {
	runtime.LockOSThread()
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := confine(dir); err != nil {
		return err
	}
	args := slices.DeleteFunc(slices.Clone(os.Args), func(a string) bool { return a == "-landlock" })
	return syscall.Exec("/proc/self/exe", args, os.Environ())
}

// figures are an act's, by arm.
type figures map[string]map[arm][]float64

func (all figures) add(name string, a arm, x []float64) {
	if all[name] == nil {
		all[name] = map[arm][]float64{}
	}
	all[name][a] = append(all[name][a], x...)
}

// compare has all arms take turns and prints what was found.
func compare(f flags) (err error) {
	dir, err := os.MkdirTemp("/tmp", "guardcost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s := stage{dir: dir, account: xos.Account{User: "bench", VO: "bench"},
		cfg: guard.Config{CgroupRoot: "/sys/fs/cgroup", Subtree: "guardcost", PinDir: filepath.Join(dir, "bpf/xos"), Run: filepath.Join(dir, "run"), Scratch: []string{}}}
	if _, err := os.Stat(filepath.Join(s.cfg.CgroupRoot, "unified")); err == nil {
		s.cfg.CgroupRoot += "/unified"
	}
	if err := os.MkdirAll(filepath.Dir(s.cfg.PinDir), 0o700); err != nil {
		return err
	}
	if there, err := remains(prefix); err != nil || there != "" {
		return errors.Join(err, fmt.Errorf("program %s is in force: systemctl stop xos-node && rm /sys/fs/bpf/xos/link_*", there))
	}
	defer func() {
		subtree := filepath.Join(s.cfg.CgroupRoot, s.cfg.Subtree)
		for _, of := range []string{"vo-bench/job-bench", "vo-bench", "vo-" + otherVO + "/job-bench", "vo-" + otherVO, ""} {
			os.Remove(filepath.Join(subtree, of))
		}
		err = errors.Join(err, unix.Unmount(filepath.Dir(s.cfg.PinDir), unix.MNT_DETACH))
	}()
	g, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s.level, _ = g.Level()
	if err := errors.Join(g.Close(), os.RemoveAll(s.cfg.PinDir), settled(prefix)); err != nil {
		return err
	}
	if err := s.prepareWorkers(); err != nil {
		return err
	}
	arms, err := s.arms(f.arms)
	if err != nil {
		return err
	}
	if f.refused {
		if s.level != nodeguard.LevelA {
			return xos.Errorf(xos.NotSupported, "level %s: what is compared is refused by programs of LSM, which this kernel takes none of", s.level)
		}
		arms = slices.DeleteFunc(arms, func(a arm) bool { return a == landlock || a == apparmor }) // they know no VOs
	}
	if f.programs {
		return s.programs(arms, os.Stdout)
	}
	all := figures{}
	for round := range f.rounds {
		for _, a := range turns(arms) {
			if err := s.block(a, f, all); err != nil {
				return fmt.Errorf("%s: %w", a, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, f.rounds)
	}
	fmt.Printf("# level %s, %d runs of each load, %d of each act, user in %s\n", s.level, 2*f.rounds, 2*f.rounds*perBlock, "a job's cgroup")
	all.print(os.Stdout, arms)
	return nil
}

// arms gives those of the named ones that this machine has, and says what it has
// not, and what the empty programs are run for.
func (s *stage) arms(names string) ([]arm, error) {
	arms, err := choose(names)
	if err != nil {
		return nil, err
	}
	if slices.Contains(arms, empty) {
		spec, err := bpf.LoadLsm()
		if err != nil {
			return nil, err
		}
		s.guards = spec.Programs
		found, missing, err := tryEmpty(s.guards, s.dir)
		if s.noEmpty = err; err != nil && !xos.Is(err, xos.NotSupported) {
			return nil, err
		}
		found.print(os.Stdout)
		for _, hook := range missing {
			fmt.Printf("# no hook %s in this kernel: neither the guard nor %s has a program there\n", hook, empty)
		}
	}
	return slices.DeleteFunc(arms, func(a arm) bool {
		why := s.has(a)
		if why != nil {
			fmt.Printf("# no %s: %v\n", a, why)
		}
		return why != nil
	}), nil
}

// block measures everything under one arm.
func (s stage) block(a arm, f flags, all figures) (err error) {
	cgroup, end, err := s.begin(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if f.refused {
		return s.refusals(a, f, cgroup, all)
	}
	micro := []string{"-worker", "-slice", f.slice.String()}
	if !f.whole {
		if err := s.measure("user", a, attr, all, "ns", micro...); err != nil {
			return err
		}
	}
	if !f.calls {
		if err := s.measure("user", a, attr, all, "ms", "-worker", "-loads"); err != nil {
			return err
		}
	}
	if f.whole || a == landlock || a == apparmor {
		return nil // they confine whom they are told to
	}
	return s.measure("root", a, &syscall.SysProcAttr{}, all, "ns", micro...)
}

// worker is this program, where all may execute it; home is where it works for one.
func (s stage) worker() string         { return filepath.Join(s.dir, "worker") }
func (s stage) home(who string) string { return filepath.Join(s.dir, who) }

// prepareWorkers makes them.
func (s stage) prepareWorkers() error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(s.worker(), data, 0o755), os.Mkdir(s.home("refused"), 0o755),
		os.Mkdir(s.home("root"), 0o755), os.Mkdir(s.home("user"), 0o755), os.Chown(s.home("user"), int(user), int(user)))
}

// measure runs the worker and keeps what it found.
func (s stage) measure(who string, a arm, attr *syscall.SysProcAttr, all figures, unit string, args ...string) error {
	home := s.home(who)
	cmd := a.command(s.worker(), args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = home, attr, os.Stderr
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	var got map[string][]float64
	if err := json.Unmarshal(out, &got); err != nil {
		return err
	}
	for act, x := range got {
		all.add(act+"_"+who+" "+unit, a, x)
	}
	return nil
}

// print writes what each arm costs, as a ratio to none. What the guard costs above
// the empty programs is the work of its own programs, of LSM and all others.
func (all figures) print(w io.Writer, arms []arm) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		act, unit, _ := strings.Cut(name, " ")
		base := median(all[name][none])
		fmt.Fprintf(w, "BENCH guard_%s_%s %.4g %s\n", act, none, base, unit)
		for _, a := range arms[1:] {
			if x := all[name][a]; len(x) > 0 {
				fmt.Fprintf(w, "BENCH guard_%s_%s_ratio %.3f x\n", act, a, median(x)/base)
			}
		}
		if e, g := all[name][empty], all[name][guarded]; len(e) > 0 && len(g) > 0 {
			fmt.Fprintf(w, "BENCH guard_%s_%s_above_%s %.3f x\n", act, guarded, empty, (median(g)-median(e))/base)
		}
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
