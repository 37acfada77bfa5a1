package guard

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Usage is what a VO's jobs together, or one of them, have used of this machine,
// as the kernel counts it. A VO's counts include jobs that have ended; they begin
// anew when the machine does. What the kernel does not count here is absent.
type Usage struct {
	VO, Job string // Job is "" for the VO
	Counts  map[string]float64
}

// counters are what is exported, by the files and keys of a cgroup.
var counters = []struct {
	name, kind, help string
	file, key        string // key "" is a file with one number
	scale            float64
}{
	{"cpu_seconds_total", "counter", "Processor time.", "cpu.stat", "usage_usec", 1e-6},
	{"cpu_throttled_seconds_total", "counter", "Time for which the ceiling of processors held it up.", "cpu.stat", "throttled_usec", 1e-6},
	{"memory_bytes", "gauge", "Memory in use, caches of files included.", "memory.current", "", 1},
	{"memory_peak_bytes", "gauge", "The most memory that was in use.", "memory.peak", "", 1},
	{"memory_kills_total", "counter", "Processes ended for want of memory.", "memory.events", "oom_kill", 1},
	{"processes", "gauge", "Processes and threads.", "pids.current", "", 1},
	{"processes_refused_total", "counter", "Forks that the ceiling refused.", "pids.events", "max", 1},
	{"io_read_bytes_total", "counter", "Bytes read from disks.", "io.stat", "rbytes=", 1},
	{"io_written_bytes_total", "counter", "Bytes written to disks.", "io.stat", "wbytes=", 1},
}

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
		list = append(list, Usage{VO: vo, Counts: count(dir)})
		jobs, err := os.ReadDir(dir)
		if err != nil {
			continue // it has just gone
		}
		for _, j := range jobs {
			if job, found := strings.CutPrefix(j.Name(), "job-"); found && j.IsDir() {
				list = append(list, Usage{vo, job, count(filepath.Join(dir, j.Name()))})
			}
		}
	}
	return list, nil
}

// count reads a cgroup's counters.
func count(dir string) map[string]float64 {
	found := map[string]float64{}
	for _, c := range counters {
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
	return found
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

// exposition writes each counter once for VOs and once for jobs: a sum over
// series shall not count anything twice.
func exposition(list []Usage) []byte {
	var b bytes.Buffer
	sort.Slice(list, func(i, j int) bool {
		return list[i].VO < list[j].VO || list[i].VO == list[j].VO && list[i].Job < list[j].Job
	})
	for _, of := range []string{"vo", "job"} {
		for _, c := range counters {
			name := "xos_" + of + "_" + c.name
			head := false
			for _, u := range list {
				n, have := u.Counts[c.name]
				if !have || (u.Job == "") != (of == "vo") {
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
