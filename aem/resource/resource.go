// Package resource says what this machine offers to jobs, as srds.Attributes.
//
// Numbers: cpus (cores), memory and memory_free (bytes), load (processes that
// run or want to, over one minute), jobs (of the grid, running here), disk_free
// (bytes, where the jobs' temporary files go).
// Texts: arch (as Go names it), os and os_version (os-release(5): "debian",
// "13"), kernel (its release), isolation (nodeguard.Level), node (its name).
package resource

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/srds"
)

// Config names this machine.
type Config struct {
	Node    xos.NodeID
	Address string       // host:port of its node service, as others reach it
	VOs     []xos.VOName // served; "*" for every one
}

// Live is what changes and is known elsewhere.
type Live struct {
	Jobs      func() int    // grid jobs that run here
	Isolation func() string // nodeguard's level
}

// Machine describes this machine.
type Machine struct {
	cfg  Config
	live Live
	text map[string]string
}

// New reads what does not change.
func New(cfg Config, live Live) *Machine {
	m := &Machine{cfg: cfg, live: live, text: map[string]string{"arch": runtime.GOARCH, "node": string(cfg.Node)}}
	if data, err := os.ReadFile("/etc/os-release"); err == nil {
		m.text["os"], m.text["os_version"] = osRelease(data)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.text["kernel"] = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// Describe gives the attributes of this moment.
func (m *Machine) Describe() srds.Attributes {
	a := srds.Attributes{Node: m.cfg.Node, Address: m.cfg.Address, VOs: m.cfg.VOs,
		Number: map[string]float64{"cpus": float64(runtime.NumCPU()), "jobs": float64(m.live.Jobs())},
		Text:   map[string]string{"isolation": m.live.Isolation()}}
	for k, v := range m.text {
		if v != "" {
			a.Text[k] = v
		}
	}
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		a.Number["memory"], a.Number["memory_free"] = memory(data)
	}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		word, _, _ := strings.Cut(string(data), " ")
		if f, err := strconv.ParseFloat(word, 64); err == nil && !math.IsNaN(f) {
			a.Number["load"] = f
		}
	}
	var st unix.Statfs_t
	if unix.Statfs("/tmp", &st) == nil {
		a.Number["disk_free"] = float64(st.Bavail) * float64(st.Bsize)
	}
	return a
}

// memory reads proc_meminfo(5), whose unit is KiB.
func memory(data []byte) (total, free float64) {
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n * 1024
		case "MemAvailable:":
			free = n * 1024
		}
	}
	return total, free
}

func osRelease(data []byte) (id, version string) {
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		}
	}
	return id, version
}
