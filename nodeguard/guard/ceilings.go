package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
)

// Ceilings bound what a VO's jobs, or an account's logins, may use of this
// machine together. A zero is no bound.
type Ceilings struct {
	// CPUs are processors, in thousandths.
	CPUs int64
	// Memory and Swap are bytes.
	Memory, Swap int64
	// Processes counts threads.
	Processes int64
	// IO is bytes a second, of reads and of writes, on each disk.
	IO int64
}

// Portions are Ceilings as an owner writes them: "" for none, or an amount
// ("1.5" CPUs, "16G" of Memory, "500" Processes, "50M" of IO), or a part of what
// this machine has ("75%"; not of IO).
type Portions struct{ CPUs, Memory, Processes, IO string }

// On gives what they are on this machine.
func (p Portions) On(machine Machine) (c Ceilings, err error) {
	if c.CPUs, err = portion("CPUs", p.CPUs, machine.CPUs, 1000); err != nil {
		return c, err
	}
	if c.Memory, err = portion("memory", p.Memory, machine.Memory, 1); err != nil {
		return c, err
	}
	// The same part of it, or the same amount: a VO must not fill it either.
	if c.Swap, err = portion("swap", p.Memory, machine.Swap, 1); err != nil {
		return c, err
	}
	if c.Processes, err = portion("processes", p.Processes, machine.Processes, 1); err != nil {
		return c, err
	}
	c.IO, err = portion("I/O", p.IO, 0, 1)
	return c, err
}

// least is below what a ceiling is refused as a mistake: a unit forgotten.
var least = map[string]float64{"CPUs": 10, "memory": 16 << 20, "processes": 10, "I/O": 64 << 10, "swap": 1}

// portion reads one: an amount is multiplied by unit.
func portion(what, text string, all, unit int64) (int64, error) {
	if text == "" {
		return 0, nil
	}
	bad := func(why string) (int64, error) {
		return 0, xos.Errorf(xos.Invalid, "a ceiling of %.40q for %s: %s", text, what, why)
	}
	number, factor := text, float64(unit)
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		number, factor = percent, float64(all)/100
	} else if unit == 1 {
		if at := strings.IndexByte("KMGT", text[len(text)-1]); at >= 0 {
			number, factor = text[:len(text)-1], math.Pow(1024, float64(at+1))
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || math.IsNaN(n) || n <= 0:
		return bad("neither an amount, as in 2 or 16G, nor a part, as in 75%")
	case strings.HasSuffix(text, "%") && n > 100:
		return bad("more than all")
	case strings.HasSuffix(text, "%") && what == "I/O":
		return bad("what a disk can do is not known: write bytes a second, as in 50M")
	case n*factor > 1<<60:
		return bad("too much")
	case n*factor < least[what] && factor != 0: // a part of no swap is none
		return bad(fmt.Sprintf("too little to work with: less than %.0f", least[what]/float64(unit)))
	}
	return int64(n * factor), nil
}

// under gives the lower of each two.
func (c Ceilings) under(most Ceilings) Ceilings {
	lower := func(a, b int64) int64 {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return Ceilings{CPUs: lower(c.CPUs, most.CPUs), Memory: lower(c.Memory, most.Memory), Swap: lower(c.Swap, most.Swap),
		Processes: lower(c.Processes, most.Processes), IO: lower(c.IO, most.IO)}
}

// Machine is what this machine has.
type Machine struct{ CPUs, Memory, Swap, Processes int64 }

// ThisMachine looks.
func ThisMachine() (Machine, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Machine{}, fmt.Errorf("looking for memory: %w", err)
	}
	m := Machine{CPUs: int64(runtime.NumCPU()) * 1000, Memory: int64(info.Totalram) * int64(info.Unit), Swap: int64(info.Totalswap) * int64(info.Unit)}
	for _, name := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		n, err := kernelNumber(name)
		if err != nil {
			return m, err
		}
		if m.Processes == 0 || n < m.Processes {
			m.Processes = n
		}
	}
	return m, nil
}

func kernelNumber(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// high is where the kernel begins to slow whoever wants more memory, so that
// something can still be done about it; not far below the ceiling, since there a
// process that leaks is ended.
func (c Ceilings) high() int64 { return c.Memory - min(c.Memory/10, 128<<20) }

// Unbound gives those of a guard's missing features for want of which the
// ceilings of jobs or of logins are not in force.
func Unbound(jobs, logins Ceilings, features []nodeguard.Feature) []nodeguard.Feature {
	wanted := map[string]bool{
		"controller cpu": jobs.CPUs != 0, "controller memory": jobs.Memory != 0,
		"controller pids": jobs.Processes != 0, "controller io": jobs.IO != 0,
		"limits of logins": logins != Ceilings{},
	}
	return slices.DeleteFunc(slices.Clone(features), func(f nodeguard.Feature) bool { return f.Have || !wanted[f.Name] })
}

// bound writes ceilings into a cgroup. A controller that is not there is a
// missing feature and told as one; any other failure is an error, and then
// nothing may run there.
func (c Ceilings) bound(dir string) error {
	set := func(file, value string) error {
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			_, err = f.WriteString(value)
			f.Close()
		}
		if err != nil && !errors.Is(err, unix.ENODEV) { // a disk that was just taken out
			return xos.Errorf(xos.Unavailable, "bounding %s: %w", filepath.Base(dir), err)
		}
		return nil
	}
	most := func(n int64) string {
		if n == 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	quota := "max"
	if c.CPUs > 0 {
		quota = strconv.FormatInt(max(c.CPUs*100, 1000), 10)
	}
	errs := []error{
		set("cpu.weight", "100"),
		set("cpu.max", quota+" 100000"),
		set("memory.high", most(c.high())),
		set("memory.max", most(c.Memory)),
		set("memory.swap.max", most(c.Swap)),
		set("pids.max", most(c.Processes)),
		set("io.weight", "100"),
	}
	for _, disk := range disks() {
		errs = append(errs, set("io.max", fmt.Sprintf("%s rbps=%s wbps=%s", disk, most(c.IO), most(c.IO))))
	}
	return errors.Join(errs...)
}

// disks are the numbers of those that are hardware, "254:0": what lies on them
// (partitions, volumes) ends up there.
func disks() []string {
	var found []string
	names, _ := filepath.Glob("/sys/block/*/device")
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(name), "dev"))
		if err == nil {
			found = append(found, strings.TrimSpace(string(data)))
		}
	}
	return found
}
