package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xtreemos/xos/test/testbed"
)

// Config says which machine to boot.
type Config struct {
	// Name tells machines on one host apart: lower-case letters and digits, at
	// most 16. One that is running keeps its name.
	Name string
	// Kernel is the release whose kernel it has; default Debian13.
	Kernel Kernel
	// Debs are packages to be installed in it.
	Debs []string
	// Memory in MiB; default 2048.
	Memory int
	// Append is added to the kernel's command line.
	Append string
	// Counted has the machine's clock go by the instructions that it executes, one a
	// nanosecond, and by the host's only while it has none: what takes time in it
	// takes so many instructions, however busy the host is.
	Counted bool
	// Detached machines outlive this process.
	Detached bool
	// BootTimeout bounds the boot; default 10 minutes, for hosts with two busy
	// processors.
	BootTimeout time.Duration
	// Log receives progress; nil discards it.
	Log *slog.Logger
	// Progress receives what apt prints; nil discards it.
	Progress io.Writer
}

var machineName = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)

func (c *Config) complete() error {
	if !machineName.MatchString(c.Name) {
		return fmt.Errorf("vm: %q is no machine's name", c.Name)
	}
	if c.Kernel == "" {
		c.Kernel = Debian13
	}
	if !slices.Contains(Kernels, c.Kernel) {
		return fmt.Errorf("vm: there is no kernel %q", c.Kernel)
	}
	if c.Memory == 0 {
		c.Memory = 2048
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = 10 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// stateDir holds a directory for each machine: sockets, console, pid.
const stateDir = "/var/lib/xtreemos-vm"

// Machine is a running one. It may be used from several goroutines.
type Machine struct {
	Name   string
	Kernel Kernel

	dir string
	// ended is closed when QEMU is gone; nil for a machine that another
	// process started.
	ended  chan struct{}
	remote remote
}

// Start boots a machine and returns when its systemd has finished its start, or
// with nothing left behind when it has not.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("vm: starting a machine needs root")
	}
	img, err := image(ctx, cfg.Log, cfg.Progress, slices.Clone(cfg.Debs))
	if err != nil {
		return nil, err
	}
	m := newMachine(cfg.Name)
	m.Kernel = cfg.Kernel
	began := time.Now()
	if err := m.begin(ctx, img, cfg); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.BootTimeout)
	defer cancel()
	if err := m.await(ctx, cfg.Log); err != nil {
		err = fmt.Errorf("booting %s: %w\n%s", m.Name, err, m.Console(4096))
		return nil, errors.Join(err, m.Close())
	}
	cfg.Log.Info("machine is up", "name", m.Name, "kernel", m.Kernel, "seconds", int(time.Since(began).Seconds()))
	return m, nil
}

// begin has QEMU start, with nothing left behind if it does not. One at a time: a
// name is one machine's.
func (m *Machine) begin(ctx context.Context, img string, cfg Config) error {
	unlock, err := testbed.Lock(ctx, filepath.Join(testbed.CacheDir, ".vm-start.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if pid := m.pid(); pid != 0 {
		return fmt.Errorf("vm: there is a machine %s already: QEMU is process %d", cfg.Name, pid)
	}
	if err := Stop(cfg.Name); err != nil { // what a killed one has left
		return err
	}
	if err := m.launch(ctx, img, cfg); err != nil {
		return errors.Join(err, m.Close())
	}
	return nil
}

func newMachine(name string) *Machine {
	m := &Machine{Name: name, dir: filepath.Join(stateDir, name)}
	m.remote.dir = m.dir
	return m
}

// launch starts QEMU.
func (m *Machine) launch(ctx context.Context, img string, cfg Config) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.dir, "kernel"), []byte(cfg.Kernel), 0o600); err != nil {
		return err
	}
	cpu, err := plain(ctx)
	if err != nil {
		return err
	}
	said, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.Command("qemu-system-x86_64", arguments(m.dir, img, cpu, cfg)...)
	cmd.Stdout, cmd.Stderr = said, said
	// What is translated is looked up in tables at each jump that is not known beforehand:
	// with larger pages the guard's tests took 10 % less, where the host is virtual itself.
	cmd.Env = append(os.Environ(), "TMPDIR="+m.dir, "GLIBC_TUNABLES=glibc.malloc.hugetlb=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !cfg.Detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error)
	m.ended = make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started the process: it
		// must be this goroutine's as long as that lives.
		runtime.LockOSThread()
		defer close(m.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	pid := strconv.Itoa(cmd.Process.Pid) + " " + testbed.StartTime(cmd.Process.Pid)
	return os.WriteFile(filepath.Join(m.dir, "pid"), []byte(pid), 0o600)
}

// await polls until systemd says that it has finished.
func (m *Machine) await(ctx context.Context, log *slog.Logger) error {
	last := errors.New("nothing answers on its ports")
	for {
		attempt, cancel := context.WithTimeout(ctx, 90*time.Second)
		out, err := m.Output(attempt, "systemctl", "is-system-running", "--wait")
		cancel()
		switch strings.TrimSpace(out) {
		case "running":
			return nil
		case "degraded":
			failed, _ := m.Output(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
			log.Warn("machine is up with failed units", "name", m.Name, "units", failed)
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-m.ended:
			said, _ := os.ReadFile(filepath.Join(m.dir, "qemu.log"))
			return fmt.Errorf("QEMU has ended: %s", said)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Attach finds a running machine by its name.
func Attach(ctx context.Context, name string) (*Machine, error) {
	if !machineName.MatchString(name) {
		return nil, fmt.Errorf("vm: %q is no machine's name", name)
	}
	m := newMachine(name)
	if m.pid() == 0 {
		return nil, fmt.Errorf("vm: %s is not running", name)
	}
	kernel, err := os.ReadFile(filepath.Join(m.dir, "kernel"))
	m.Kernel = Kernel(kernel)
	return m, err
}

// pid is QEMU's, 0 if it does not run.
func (m *Machine) pid() int {
	data, _ := os.ReadFile(filepath.Join(m.dir, "pid"))
	number, start, _ := strings.Cut(string(data), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 1 || start == "" || testbed.StartTime(pid) != start {
		return 0
	}
	return pid
}

// Close ends the machine as a power cut would and removes what it had. It may
// be called twice.
func (m *Machine) Close() error {
	m.remote.close()
	if err := Stop(m.Name); err != nil {
		return err
	}
	if m.ended != nil {
		<-m.ended
	}
	return nil
}

// Stop ends the machine of that name, whoever started it, running or not.
func Stop(name string) error {
	if !machineName.MatchString(name) {
		return fmt.Errorf("vm: %q is no machine's name", name)
	}
	m := newMachine(name)
	if pid := m.pid(); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending %s: %w", name, err)
		}
		for deadline := time.Now().Add(20 * time.Second); m.pid() != 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("ending %s: QEMU, process %d, does not end", name, pid)
			}
		}
	}
	err := os.RemoveAll(m.dir)
	_ = os.Remove(stateDir) // the last one
	return err
}

// Console is the end of what the machine's kernel and systemd have printed.
func (m *Machine) Console(most int) string {
	data, _ := os.ReadFile(filepath.Join(m.dir, "console.log"))
	data = data[max(0, len(data)-most):]
	return string(bytes.ToValidUTF8(bytes.TrimSpace(data), []byte("?")))
}
