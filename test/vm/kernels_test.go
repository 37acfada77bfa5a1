package vm_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xtreemos/xos/test/vm"
	"github.com/xtreemos/xos/test/vm/wire"
)

// TestRootKernels does on each kernel all that needs one of Debian's own: one
// boot takes minutes, so what is tried on it is tried in one go. A machine is
// emulated by one processor, so the kernels run beside one another.
func TestRootKernels(t *testing.T) {
	debs, p := packages(t), newPrograms(t)
	for _, kernel := range vm.Kernels {
		if only := os.Getenv("XOS_KERNEL"); only != "" && only != string(kernel) {
			continue // by hand
		}
		t.Run(string(kernel), func(t *testing.T) {
			t.Parallel()
			s := boot(t, kernel, debs, p)
			s.processors(2)
			t.Run("guard", s.sub(guards))
			s.processors(1)
			s.sub(settle)(t) // whichever part is asked for
			s.processors(2)
			t.Run("ceilings", s.sub(ceilingsAreSet))
			if kernel == vm.Debian12 {
				t.Run("rings", s.sub(rings))
			}
			t.Run("starvation", s.sub(nobodyStarves))
			t.Run("apart", s.sub(apart))
		})
	}
}

// sub makes a part of the test of a function of the stage, and tells what it cost.
func (s *stage) sub(f func(s *stage)) func(t *testing.T) {
	return func(t *testing.T) {
		s := &stage{s.Machine, t, t.Context(), s.programs}
		up, busy := s.clock()
		f(s)
		upThen, busyThen := s.clock()
		t.Logf("took %.1f s by the machine's clock, its processors busy for %.1f s", (upThen - up).Seconds(), (busyThen - busy).Seconds())
	}
}

// guards runs the guard's own tests of its programs, those for LSM among them,
// which this kernel must have, before there is a grid: to the guard of xos-node their
// people are strangers, who may execute nothing. Those that are about the guard, not
// the kernel, are the one's or the other's.
func guards(s *stage) {
	s.program("guard.test")
	if s.settled() { // a machine that was kept
		s.root("systemctl stop xos-node && rm -f /sys/fs/bpf/xos/link_*")
		defer s.root("systemctl start xos-node")
		// A stranger executes again when the kernel has let go of the programs.
		s.root("for i in $(seq 60); do setpriv --reuid 1879058192 --regid 1879058192 --clear-groups true 2>/dev/null && exit; sleep 1; done; exit 1")
	}
	others := map[vm.Kernel]string{
		vm.Debian12: "LSMHasNoGap|EachRefusalIsTold|UsageIsTold",
		vm.Debian13: "LSMManyVOs|LSMOutlivesTheGuard|LSMListsSockets|LowersItsCeilings|RefusalsAfter|RefusalsOf|RootStay|FloodOfRefusals|TableIsTheModel",
	}
	s.guardTests("LSM|OpensAreExact|DevicesAreGiven|TableIsTheModel|UsageIsTold|LowersItsCeilings|Refusal|ProgramsThatReadNothing|RootStay", others[s.Kernel])
}

// rings has the tests' own way through io_uring tried while signals come, of which
// the older kernel bears none.
func rings(s *stage) {
	s.program("uring.test")
	s.inside("cd /root && XOS_NEED_ALL=1 exec uring.test -test.v")
}

// guardTests runs those of the guard's own tests whose names match, but for those that
// are the other kernel's: one that is alone has all.
func (s *stage) guardTests(which, others string) {
	s.t.Helper()
	skip := ""
	if os.Getenv("XOS_KERNEL") == "" {
		skip = " -test.skip='" + others + "'"
	}
	s.inside("cd /root && XOS_NEED_ALL=1 XOS_LSM=1" + passed("XOS_RELOADS") + " exec /usr/local/bin/guard.test -test.v -test.run='" + which + "'" + skip + " -test.timeout=" + bound())
}

// inside runs a program of tests and shows what it says.
func (s *stage) inside(command string) {
	s.t.Helper()
	var said strings.Builder
	exit, err := s.Do(s.ctx, wire.Spec{Argv: []string{"/bin/sh", "-c", command}}, vm.Streams{Stdout: &said, Stderr: &said})
	s.t.Log(said.String())
	if err != nil || exit.Code != 0 {
		s.t.Errorf("status %d (%v)", exit.Code, err)
	}
}

// passed gives a test inside what was set for this one: how often something is to
// be done.
func passed(name string) string {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return ""
	}
	return fmt.Sprint(" ", name, "=", n)
}

// bound is how long the tests inside may take.
func bound() string {
	if passed("XOS_RELOADS")+passed("XOS_KILLS") != "" {
		return "24h" // the test that runs this one has a bound
	}
	return "20m"
}

// apart runs the checklist of isolation inside, and holds what the guard says
// of this kernel to the page about it. The kernels have the ways in which xos-node
// ends by turns; commands, which are the same on each, are the first's, and demands the
// second's. A kernel that is alone has all.
func apart(s *stage) {
	s.program("prober")
	s.program("apart.test")
	if err := s.PushFile(s.ctx, "../../docs/nodeguard.md", "/root/docs/nodeguard.md"); err != nil {
		s.t.Fatal(err)
	}
	rounds, skip := passed("XOS_KILLS"), "Checklist"
	if at := slices.Index(vm.Kernels, s.Kernel); os.Getenv("XOS_KERNEL") == "" {
		if rounds == "" {
			rounds = fmt.Sprintf(" XOS_KILLS=2 XOS_KILLS_FROM=%d", 1+2*at)
		}
		skip += []string{"|VODemandsALevel", "|GuardCommand"}[at]
	}
	command := "mkdir -p /root/test/apart && cd /root/test/apart && XOS_NEED_ALL=1 XOS_HERE=1" + rounds + " exec apart.test -test.v -test.timeout=" + bound()
	s.processors(1)
	s.inside(command + " -test.run=Checklist")
	s.processors(2)
	s.inside(command + " -test.skip='" + skip + "'")
}
