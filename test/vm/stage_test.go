package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
	"github.com/xtreemos/xos/test/vm"
	"github.com/xtreemos/xos/test/vm/wire"
)

// stage is a machine that is a grid: core, storage, node and client in one,
// with the people of the story.
type stage struct {
	*vm.Machine
	t        *testing.T
	ctx      context.Context
	programs *programs
}

// ceilings are the machine's, small enough to be reached in seconds.
const ceilings = `
vo_cpus = "1"
vo_memory = "256M"
vo_processes = "150"
vo_io = "8M"
login_cpus = "1"
login_memory = "256M"
login_processes = "150"
login_io = "8M"
`

// packages are what the machines get, where there can be machines.
func packages(t *testing.T) []string {
	t.Helper()
	need.Root(t)
	if runtime.GOARCH != "amd64" {
		need.Missing(t, "an amd64 machine", "the packages and kernels are amd64's")
	}
	for _, command := range []string{"qemu-system-x86_64", "debootstrap", "mkfs.ext4"} {
		need.Command(t, command)
	}
	debs, err := filepath.Glob(filepath.Join(os.Getenv("XOS_DEBS"), "xtreemos-*.deb"))
	if err != nil || os.Getenv("XOS_DEBS") == "" || len(debs) == 0 {
		need.Missing(t, "packages", "make debs builds them; set XOS_DEBS")
	}
	return debs
}

// boot boots a machine with packages. It ends with the test; when that has failed,
// what it printed and its journal are shown. With XOS_KEEP set it outlives
// the test, and is used again as it is.
func boot(t *testing.T, kernel vm.Kernel, debs []string, p *programs) *stage {
	t.Helper()
	ctx := t.Context()
	name, keep := fmt.Sprint("test", string(kernel), os.Getpid()%10000), os.Getenv("XOS_KEEP") != ""
	if keep {
		name = "keep" + string(kernel)
	}
	m, err := vm.Attach(ctx, name)
	if !keep || err != nil {
		// Counted: to what is inside, with all its deadlines, a host that is busy is as
		// fast as one that is not.
		m, err = vm.Start(ctx, vm.Config{Name: name, Kernel: kernel, Debs: debs, Counted: true, Append: "maxcpus=1", Detached: keep, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{m, t, ctx, p}
	t.Cleanup(func() {
		if t.Failed() {
			last, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			journal, err := m.Output(last, "journalctl", "-b", "-o", "short-monotonic", "-u", "xos-*", "-n", "200", "--no-pager")
			t.Logf("the console ends with:\n%s\njournal (%v):\n%s", m.Console(4096), err, journal)
		}
		if keep {
			return
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// settled tells whether the machine is a grid already.
func (s *stage) settled() bool { return s.Run(s.ctx, "test", "-e", "/root/settled") == nil }

// settle makes a grid of a machine that is none.
func settle(s *stage) {
	if s.settled() {
		return
	}
	s.root("systemctl is-active ssh || { journalctl -b -u ssh; exit 1; }")
	// A user's systemd, once started, stays: it costs seconds each time.
	s.root("mkdir -p /etc/systemd/logind.conf.d && printf '[Login]\\nUserStopDelaySec=infinity\\n' >/etc/systemd/logind.conf.d/stay.conf && systemctl kill -s HUP systemd-logind")
	s.root("for u in alice bob carol guest; do useradd -m -s /bin/bash $u; done")
	s.root("set -e; echo '" + ceilings + "' >>/etc/xos/node.toml; xos up")
	s.people()
	s.root("touch /root/settled")
}

// people makes those of the story, with their credentials, homes and keys.
func (s *stage) people() {
	s.t.Helper()
	teller := &story.Teller{Do: s.do, Out: s.t.Output()}
	var enrolments []story.Step
	for _, step := range slices.Concat(story.Administration, story.Credentials) {
		switch {
		case strings.HasPrefix(step.Who, "root@"):
			if err := teller.Tell(s.ctx, step); err != nil {
				s.t.Fatal(err)
			}
		case strings.Contains(step.Shown, "--token"):
			// The others that cost a password are the grid's tests' to try.
			enrolments = append(enrolments, step)
		}
	}
	// One after the other: a machine is one thread of QEMU's, and passwords that
	// are hashed at once keep the core from answering in time.
	for _, step := range enrolments {
		if err := teller.Tell(s.ctx, step); err != nil {
			s.t.Fatal(err)
		}
	}
	// The first login mounts a home, the first job is where all is cold.
	s.until("alice@physics", "xsub --node node1 -- true")
	for _, account := range []string{"bob@physics", "carol@chemistry"} {
		s.until(account, "true")
	}
}

// processors has the machine use one or both of its processors. With one all takes some
// 13 % less, since one thread emulates both by turns: what is not about what happens at once
// has one.
func (s *stage) processors(n int) {
	s.t.Helper()
	s.root(fmt.Sprintf("echo %d >/sys/devices/system/cpu/cpu1/online; nproc | grep -qx %d", n-1, n))
}

// commandTime bounds one command, by this process's clock, not the machine's: what
// takes seconds elsewhere takes ten times as long here, and thirty times on a busy host.
const commandTime = 12 * time.Minute

// clock is the machine's own, which goes by 1 ns with each instruction of any processor's:
// how long it has been up, and how long its processors had something to do in that time,
// all together.
func (s *stage) clock() (up, busy time.Duration) {
	s.t.Helper()
	var u, idle, user, nice, system, none, wait, irq, softirq float64
	said := s.root("cat /proc/uptime /proc/stat")
	if _, err := fmt.Sscanf(said, "%g %g\ncpu %g %g %g %g %g %g %g", &u, &idle, &user, &nice, &system, &none, &wait, &irq, &softirq); err != nil {
		s.t.Fatalf("%v: %.200s", err, said)
	}
	const second, tick = float64(time.Second), float64(time.Second / 100)
	return time.Duration(u * second), time.Duration((user + nice + system + irq + softirq) * tick)
}

// do gives a shell command as a user of the machine.
func (s *stage) do(ctx context.Context, _, user, command string) (string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var out bytes.Buffer
	exit, err := s.Do(ctx, wire.Spec{Argv: testbed.As(user, command)}, vm.Streams{Stdout: &out, Stderr: &out})
	return out.String(), exit.Code, err
}

// root gives one as root that must not fail.
func (s *stage) root(command string) string {
	s.t.Helper()
	return s.as("root", command)
}

func (s *stage) as(user, command string) string {
	s.t.Helper()
	out, status, err := s.do(s.ctx, "", user, command)
	if err != nil || status != 0 {
		s.t.Fatalf("%s: %s: status %d (%v)\n%s", user, command, status, err, out)
	}
	return strings.TrimSpace(out)
}

// until repeats a command of a person's session until it succeeds.
func (s *stage) until(account, command string) {
	s.t.Helper()
	user, _, _ := strings.Cut(account, "@")
	for deadline := time.Now().Add(commandTime); ; {
		out, status, err := s.do(s.ctx, "", user, ssh(account, command))
		if err == nil && status == 0 {
			return
		}
		if err != nil || time.Now().After(deadline) {
			s.t.Fatalf("%s: %s: status %d (%v)\n%s", account, command, status, err, out)
		}
	}
}

// program puts one of the tree's where everybody can run it.
func (s *stage) program(name string) {
	s.t.Helper()
	bin, err := s.programs.build[name]()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.PushFile(s.ctx, bin, "/usr/local/bin/"+name); err != nil {
		s.t.Fatal(err)
	}
}

// failed is err without the status of a command that ended otherwise than 0.
func failed(err error) error {
	var exit *vm.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
