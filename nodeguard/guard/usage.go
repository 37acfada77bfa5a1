package guard

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// Usage is what a VO's jobs together, one of them, or a user outside of jobs has
// used of this machine, as the kernel counts it. A VO's counts include jobs that
// have ended; they begin anew when the machine does. What the kernel does not
// count here is absent.
type Usage struct {
	VO, Job, User string // Job and User are "" for the VO
	Counts        map[string]float64
}

// kind is whose usage it is, as the names of the series say it.
func (u Usage) kind() string {
	switch {
	case u.User != "":
		return "account"
	case u.Job != "":
		return "job"
	}
	return "vo"
}

// counter is one figure that is exported.
type counter struct {
	name, kind, help string
	file, key        string // of a cgroup; key "" is a file with one number, file "" a figure of the meter's
	scale            float64
}

var counters = []counter{
	{"cpu_seconds_total", "counter", "Processor time.", "cpu.stat", "usage_usec", 1e-6},
	{cpuUser, "counter", "Processor time in programs.", "cpu.stat", "user_usec", 1e-6},
	{cpuSystem, "counter", "Processor time in the kernel for them.", "cpu.stat", "system_usec", 1e-6},
	{"cpu_throttled_seconds_total", "counter", "Time for which the ceiling of processors held it up.", "cpu.stat", "throttled_usec", 1e-6},
	{"memory_bytes", "gauge", "Memory in use, caches of files included.", "memory.current", "", 1},
	{memoryPeak, "gauge", "The most memory that was in use.", "memory.peak", "", 1},
	{"memory_kills_total", "counter", "Processes ended for want of memory.", "memory.events", "oom_kill", 1},
	{"processes", "gauge", "Processes and threads.", "pids.current", "", 1},
	{"processes_refused_total", "counter", "Forks that the ceiling refused.", "pids.events", "max", 1},
	{ioRead, "counter", "Bytes read from disks.", "io.stat", "rbytes=", 1},
	{ioWritten, "counter", "Bytes written to disks.", "io.stat", "wbytes=", 1},
	{name: netIn, kind: "counter", help: "Bytes of IP packets received, headers included."},
	{name: netOut, kind: "counter", help: "Bytes of IP packets sent, headers included."},
	{name: execs, kind: "counter", help: "Programs executed."},
	{name: opens, kind: "counter", help: "Files opened, programs and their libraries included."},
	{name: refused, kind: "counter", help: "What was refused for the sake of other VOs: sockets, connections and devices, and what the kernel's checks refuse at level A."},
}

const (
	cpuUser, cpuSystem = "cpu_user_seconds_total", "cpu_system_seconds_total"
	memoryPeak         = "memory_peak_bytes"
	// The meter has these; those of disks only where no controller counts them.
	ioRead, ioWritten = "io_read_bytes_total", "io_written_bytes_total"
	netIn, netOut     = "network_received_bytes_total", "network_sent_bytes_total"
	execs, opens      = "executions_total", "opened_files_total"
	refused           = "refusals_total"
)

// Usage counts all VOs that have had jobs here since the machine was started.
func (g *Guard) Usage() ([]Usage, error) {
	var list []Usage
	top := filepath.Join(g.cgroups.root, g.cgroups.subtree)
	entries, err := os.ReadDir(top)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		vo, found := strings.CutPrefix(e.Name(), "vo-")
		if !found || !e.IsDir() {
			continue
		}
		dir := filepath.Join(top, e.Name())
		list = append(list, Usage{VO: vo, Counts: g.count(bpf.AccountXosKindXOS_OF_VO, vo, "", dir)})
		jobs, err := os.ReadDir(dir)
		if err != nil {
			continue // it has just gone
		}
		for _, j := range jobs {
			if job, found := strings.CutPrefix(j.Name(), "job-"); found && j.IsDir() {
				list = append(list, Usage{VO: vo, Job: job, Counts: g.count(bpf.AccountXosKindXOS_OF_JOB, vo, job, filepath.Join(dir, j.Name()))})
			}
		}
	}
	if g.meter == nil {
		return list, nil
	}
	for uid, a := range g.meter.users() {
		list = append(list, Usage{VO: string(a.VO), User: string(a.User), Counts: g.count(bpf.AccountXosKindXOS_OF_USER, string(a.VO), string(a.User), g.sliceOf(uint32(uid)))})
	}
	return list, nil
}

// count reads a cgroup's counters, and the meter's.
func (g *Guard) count(kind bpf.AccountXosKind, vo, name, dir string) map[string]float64 {
	found := map[string]float64{}
	readCgroup(dir, found)
	if g.meter == nil {
		return found
	}
	_, disks := found[ioRead]
	get := g.meter.figures
	if !disks {
		get = func(kind bpf.AccountXosKind, vo xos.VOName, name string) (bpf.AccountXosUsed, bool, error) {
			return g.meter.withAlive(kind, vo, name, dir)
		}
	}
	u, ok, err := get(kind, xos.VOName(vo), name)
	if err != nil {
		g.log.Warn("figures are missing", "vo", vo, "name", name, "error", err)
	}
	if err != nil || !ok {
		return found
	}
	found[netIn], found[netOut], found[execs], found[refused] = float64(u.NetIn), float64(u.NetOut), float64(u.Execs), float64(u.Refused)
	if g.meter.opens == nil {
		found[opens] = float64(u.Opens)
	}
	if !disks {
		found[ioRead], found[ioWritten] = float64(u.Read), float64(u.Written)
	}
	return found
}

// readCgroup reads a cgroup's counters.
func readCgroup(dir string, found map[string]float64) {
	for _, c := range counters {
		if c.file == "" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, c.file))
		if err != nil {
			continue
		}
		for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
			fields := strings.Fields(scan.Text())
			for i, field := range fields {
				text, has := field, c.key == ""
				if rest, ok := strings.CutPrefix(field, c.key); ok && strings.HasSuffix(c.key, "=") {
					text, has = rest, true
				} else if field == c.key && i == 0 && len(fields) == 2 {
					text, has = fields[1], true
				}
				if n, err := strconv.ParseUint(text, 10, 64); has && err == nil {
					found[c.name] += float64(n) * c.scale
				}
			}
		}
		if _, any := found[c.name]; !any && c.file == "io.stat" {
			found[c.name] = 0 // the file is empty until a disk is touched
		}
	}
}

// Metrics serves Usage in the text format of Prometheus, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats). It is for the
// machine's owner: it names VOs and jobs.
func (g *Guard) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		list, err := g.Usage()
		if err != nil {
			http.Error(w, "the cgroups cannot be read", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(exposition(list))
	})
}

// exposition writes each counter once for VOs, once for jobs and once for users'
// sessions: a sum over series shall not count anything twice.
func exposition(list []Usage) []byte {
	var b bytes.Buffer
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return cmp.Or(cmp.Compare(a.VO, b.VO), cmp.Compare(a.Job, b.Job), cmp.Compare(a.User, b.User)) < 0
	})
	for _, of := range []string{"vo", "job", "account"} {
		for _, c := range counters {
			name := "xos_" + of + "_" + c.name
			head := false
			for _, u := range list {
				n, have := u.Counts[c.name]
				if !have || u.kind() != of {
					continue
				}
				if !head {
					fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, c.help, name, c.kind)
					head = true
				}
				labels := "vo=" + label(u.VO)
				if u.Job != "" {
					labels += ",job=" + label(u.Job)
				}
				if u.User != "" {
					labels += ",user=" + label(u.User)
				}
				fmt.Fprintf(&b, "%s{%s} %s\n", name, labels, strconv.FormatFloat(n, 'f', -1, 64))
			}
		}
	}
	return b.Bytes()
}

// label quotes a label's value.
func label(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}
