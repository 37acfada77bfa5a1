package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it no device rule is set
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"

	"github.com/xtreemos/xos/aem/unit"
)

// config is libcontainer's description of a job: own pid, mount, ipc, uts
// and cgroup namespaces, the host's network, no capability, no way to gain one.
func config(s unit.Spec, root, self string, have func(controller string) bool) (c *configs.Config, notices []string) {
	resources := &cgroups.Resources{}
	var rules []*devices.Rule
	c = &configs.Config{
		Rootfs:            root,
		Readonlyfs:        true,
		RootPropagation:   unix.MS_SLAVE | unix.MS_REC,
		ParentDeathSignal: int(unix.SIGKILL),
		NoNewPrivileges:   true,
		Capabilities:      &configs.Capabilities{},
		Mounts:            mounts(s, self),
		Namespaces: configs.Namespaces{
			{Type: configs.NEWPID}, {Type: configs.NEWNS}, {Type: configs.NEWIPC}, {Type: configs.NEWUTS}, {Type: configs.NEWCGROUP},
		},
		MaskPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		Cgroups:       &cgroups.Cgroup{Path: s.Cgroup, Resources: resources},
	}
	for _, d := range specconv.AllowedDevices {
		rule := d.Rule
		rules = append(rules, &rule)
		if d.Path != "" {
			c.Devices = append(c.Devices, d)
		}
	}
	resources.Devices = rules

	limit := func(name, controller string, set func(n int64)) {
		n, ok := s.Limits[name]
		switch {
		case !ok:
		case !have(controller):
			notices = append(notices, fmt.Sprintf("the limit of %s is not enforced on this machine: its cgroups have no %q controller", name, controller))
		default:
			set(n)
		}
	}
	limit("memory", "memory", func(n int64) {
		resources.Memory, resources.MemorySwap = n, n
		if cgroups.IsCgroup2UnifiedMode() { // first slowed, then killed
			resources.Unified = map[string]string{"memory.high": strconv.FormatInt(n-min(n/10, slowed), 10)}
		}
	})
	limit("cpus", "cpu", func(n int64) { resources.CpuPeriod, resources.CpuQuota = 100_000, n*100 })
	limit("processes", "pids", func(n int64) { resources.PidsLimit = &n })
	return c, notices
}

// slowed is the most below its limit at which a job that wants more memory is
// slowed down by the kernel.
const slowed = 128 << 20

// controllers tells which cgroup controllers libcontainer can use here.
func controllers(root string, hybrid bool) func(string) bool {
	if hybrid { // those of version 1, a directory each
		return func(name string) bool {
			_, err := os.Stat(filepath.Join("/sys/fs/cgroup", name, "cgroup.procs"))
			return err == nil
		}
	}
	data, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	set := make(map[string]bool)
	for _, name := range strings.Fields(string(data)) {
		set[name] = true
	}
	return func(name string) bool { return set[name] }
}
