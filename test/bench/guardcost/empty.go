package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// emptyName is that of all empty programs in the kernel, among the guard's.
const emptyName = prefix + "empty"

// empties are the programs of the arm empty, in force, by hook. Missing are the
// hooks that this kernel has not: there the guard has no program either.
type empties struct {
	programs map[string]*ebpf.Program
	links    []link.Link
	missing  []string
}

// emptied gives a program that only allows, at the hook of one of the guard's
// and as that is called there: sleepable or not.
func emptied(p *ebpf.ProgramSpec) (*ebpf.ProgramSpec, error) {
	if p.Type != ebpf.LSM || p.AttachType != ebpf.AttachLSMMac {
		return nil, xos.Errorf(xos.NotSupported, "%s is %s, attached as %s: this arm knows programs at LSM hooks, where 0 allows", p.Name, p.Type, p.AttachType)
	}
	q := p.Copy()
	q.Name = emptyName
	q.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	return q, nil
}

// attachEmpty puts an empty program in force beside each of these. Where the
// kernel takes none, it is NotSupported with the reason, and none is in force.
func attachEmpty(guards map[string]*ebpf.ProgramSpec) (_ *empties, err error) {
	e := &empties{programs: map[string]*ebpf.Program{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	for _, p := range slices.SortedFunc(maps.Values(guards), func(a, b *ebpf.ProgramSpec) int { return cmp.Compare(a.AttachTo, b.AttachTo) }) {
		spec, err := emptied(p)
		if err != nil {
			return nil, err
		}
		program, err := ebpf.NewProgram(spec)
		if errors.Is(err, ebpf.ErrNotSupported) {
			e.missing = append(e.missing, p.AttachTo)
			continue
		} else if err != nil {
			return nil, xos.Errorf(xos.NotSupported, "this kernel takes no LSM programs: loading one for %s: %w", p.AttachTo, err)
		}
		e.programs[p.AttachTo] = program
		at, err := link.AttachLSM(link.LSMOptions{Program: program})
		if err != nil {
			return nil, xos.Errorf(xos.NotSupported, "this kernel takes no LSM programs: attaching one to %s: %w", p.AttachTo, err)
		}
		e.links = append(e.links, at)
	}
	if len(e.links) == 0 {
		return nil, xos.Errorf(xos.NotSupported, "this kernel has none of the hooks of the guard's %d LSM programs", len(guards))
	}
	return e, nil
}

// Close takes them out of force.
func (e *empties) Close() error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	for _, p := range e.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// asked is how often one of each act runs the programs, by hook.
type asked map[string]map[string]float64

// tryEmpty proves that empty programs run here, by what the kernel counts of
// them, and says how often each act runs which: the price of one follows.
// Without that it is NotSupported with the reason.
func tryEmpty(guards map[string]*ebpf.ProgramSpec, dir string) (found asked, missing []string, err error) {
	e, err := attachEmpty(guards)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, e.Close(), settled(emptyName)) }()
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, nil, xos.Errorf(xos.NotSupported, "this kernel does not say whether programs run: %w", err)
	}
	defer counting.Close()
	err = within(dir, func() error {
		acts, err := prepare()
		if err != nil {
			return err
		}
		found, err = e.count(acts)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if found["kill"]["task_kill"] < 1 {
		return nil, nil, xos.Errorf(xos.NotSupported, "this kernel takes LSM programs and does not run them").
			WithHint(`"bpf" must be in its lsm= list`)
	}
	return found, e.missing, nil
}

// within does it in a directory, as the workers are in theirs: what a path costs
// is by its parts.
func within(dir string, do func() error) (err error) {
	here, err := os.Open(".")
	if err != nil {
		return err
	}
	defer here.Close()
	if err := os.Chdir(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, here.Chdir()) }()
	return do()
}

// count does each act so often that what others do at the time does not show.
func (e *empties) count(acts []act) (asked, error) {
	all := asked{}
	// What the counting itself runs is none of the acts'.
	idle, err := e.during(func() error { return nil })
	if err != nil {
		return nil, err
	}
	for _, a := range acts {
		times := 20 * a.batch
		ran, err := e.during(func() error {
			for range times {
				if err := a.do(); err != nil {
					return fmt.Errorf("%s: %w", a.name, err)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all[a.name] = map[string]float64{}
		for hook, n := range ran {
			all[a.name][hook] = (float64(n) - float64(idle[hook])) / float64(times)
		}
	}
	return all, nil
}

// during says how often each program ran while do did.
func (e *empties) during(do func() error) (map[string]uint64, error) {
	read := func() (map[string]uint64, error) {
		runs := map[string]uint64{}
		for _, hook := range slices.Sorted(maps.Keys(e.programs)) { // to read them runs one of them
			st, err := e.programs[hook].Stats()
			if err != nil {
				return nil, fmt.Errorf("how often %s ran: %w", hook, err)
			}
			runs[hook] = st.RunCount
		}
		return runs, nil
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	after, err := read()
	for hook := range after {
		after[hook] -= before[hook]
	}
	return after, err
}

// print writes a line for each act, without what less than one in two runs.
func (all asked) print(w io.Writer) {
	for _, act := range slices.Sorted(maps.Keys(all)) {
		var parts []string
		sum := 0.0
		for _, hook := range slices.Sorted(maps.Keys(all[act])) {
			if n := all[act][hook]; n >= 0.5 {
				parts = append(parts, fmt.Sprintf("%s %.1f", hook, n))
				sum += n
			}
		}
		fmt.Fprintf(w, "# %s runs %.1f LSM programs: %s\n", act, sum, strings.Join(parts, ", "))
	}
}
