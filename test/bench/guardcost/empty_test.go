package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/test/need"
)

// theGuards are the guard's LSM programs, as its loader has them.
func theGuards(t *testing.T) map[string]*ebpf.ProgramSpec {
	t.Helper()
	spec, err := bpf.LoadLsm()
	if err != nil {
		t.Fatal(err)
	}
	return spec.Programs
}

func TestEmptyIsAtEachOfTheGuardsHooks(t *testing.T) {
	guards := theGuards(t)
	if got, want := len(guards), int(bpf.LsmXosHookXOS_HOOKS)-1; got != want {
		t.Errorf("the object has %d programs, and enum xos_hook %d hooks", got, want)
	}
	at := map[string]bool{}
	for name, guards := range guards {
		p, err := emptied(guards)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.AttachTo == "" || name != prefix+p.AttachTo {
			t.Errorf("an empty program at %q stands for %s", p.AttachTo, name)
		}
		at[p.AttachTo] = true
	}
	if len(at) != len(guards) {
		t.Errorf("empty programs are at %d hooks, the guard's at %d", len(at), len(guards))
	}
}

func TestEmptyOnlyAllows(t *testing.T) {
	for _, guards := range theGuards(t) {
		before := guards.Copy()
		p, err := emptied(guards)
		if err != nil {
			t.Fatal(err)
		}
		var code bytes.Buffer
		if err := p.Instructions.Marshal(&code, binary.LittleEndian); err != nil {
			t.Errorf("%s: %v", p.AttachTo, err)
		}
		// r0 = 0 (BPF_ALU64 | BPF_MOV | BPF_K), exit (BPF_JMP | BPF_EXIT), of eight bytes each.
		if diff := cmp.Diff([]byte{0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}, code.Bytes()); diff != "" {
			t.Errorf("%s: %s", p.AttachTo, diff)
		}
		if p.Type != ebpf.LSM || p.AttachType != ebpf.AttachLSMMac || p.License != "GPL" || p.Flags != guards.Flags {
			t.Errorf("%s: %s at %s, licence %q, flags %#x", p.AttachTo, p.Type, p.AttachType, p.License, p.Flags)
		}
		if len(p.Name) > unix.BPF_OBJ_NAME_LEN-1 || !strings.HasPrefix(p.Name, prefix) {
			t.Errorf("whether %q is still in the kernel would not be seen", p.Name)
		}
		if len(guards.Instructions) != len(before.Instructions) || guards.Name != before.Name {
			t.Errorf("%s: the guard's own program was changed", p.AttachTo)
		}
	}
}

// That 0 allows is so where a hook gives an int: this kernel's BTF says it.
func TestTheGuardsHooksGiveAnInt(t *testing.T) {
	need.File(t, "/sys/kernel/btf/vmlinux")
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range theGuards(t) {
		var f *btf.Func
		if err := kernel.TypeByName("bpf_lsm_"+p.AttachTo, &f); errors.Is(err, btf.ErrNotFound) {
			continue // this kernel has no such hook
		} else if err != nil {
			t.Fatal(err)
		}
		proto, ok := f.Type.(*btf.FuncProto)
		if !ok {
			t.Fatalf("%s is %v", f.Name, f.Type)
		}
		if i, ok := btf.UnderlyingType(proto.Return).(*btf.Int); !ok || i.Size != 4 || i.Encoding != btf.Signed {
			t.Errorf("%s gives %v", f.Name, proto.Return)
		}
	}
}

func TestEmptyKeepsToWhatItKnows(t *testing.T) {
	guards := ebpf.ProgramSpec{Name: "xos_x", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "x", License: "GPL"}
	sleeps := guards
	sleeps.Flags = unix.BPF_F_SLEEPABLE
	if p, err := emptied(&sleeps); err != nil || p.Flags&unix.BPF_F_SLEEPABLE == 0 {
		t.Errorf("beside a program that may sleep: %v, %v", p, err)
	}
	cgroup, tracing := guards, guards
	cgroup.AttachType = ebpf.AttachLSMCgroup
	tracing.Type, tracing.AttachType = ebpf.Tracing, ebpf.AttachTraceFExit
	for _, p := range []*ebpf.ProgramSpec{&cgroup, &tracing} {
		if _, err := emptied(p); !xos.Is(err, xos.NotSupported) || !strings.Contains(err.Error(), p.AttachType.String()) {
			t.Errorf("%s: %v", p.AttachType, err)
		}
	}
}

// TestMain lets the act "exec" execute this program, and makes it what is tried on.
func TestMain(m *testing.M) {
	switch {
	case slices.Contains(os.Args, "-nothing"):
		return
	case slices.Contains(os.Args, "-stand"):
		if stand() != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Whatever this kernel takes: either the programs run, or the arm is refused with
// the reason; and nothing stays in force.
func TestRootEmptyRunsOrIsRefused(t *testing.T) {
	need.Root(t)
	found, missing, err := tryEmpty(theGuards(t), t.TempDir())
	var errno unix.Errno
	switch s := (stage{noEmpty: err}); {
	case err == nil:
		var out bytes.Buffer
		found.print(&out)
		t.Logf("%smissing: %v", &out, missing)
		for act, hook := range map[string]string{"kill": "task_kill", "stat": "inode_getattr", "open": "file_open", "datagram": "unix_may_send", "exec": "bprm_check_security"} {
			if n := found[act][hook]; n < 1 || n > 1.5 {
				t.Errorf("%s runs the program at %s %.2f times", act, hook, n)
			}
		}
	case !xos.Is(err, xos.NotSupported) || !strings.Contains(err.Error(), "takes no LSM programs: "):
		t.Errorf("refused without a reason: %v", err)
	case !errors.As(err, &errno):
		t.Errorf("what the kernel said is not in %v", err)
	case s.has(empty) == nil || s.has(none) != nil:
		t.Errorf("arms here: empty %v, none %v", s.has(empty), s.has(none))
	default:
		t.Log(err)
	}
	if err := settled(emptyName); err != nil { // other tests have the guard's
		t.Error(err)
	}
}

// A machine without the arm compares the others.
func TestRootArmsOfThisMachine(t *testing.T) {
	need.Root(t)
	s := stage{dir: t.TempDir()}
	arms, err := s.arms("empty,guard")
	if err != nil {
		t.Fatal(err)
	}
	want := []arm{none, empty, guarded}
	if s.noEmpty != nil {
		want = []arm{none, guarded}
	}
	if !slices.Equal(arms, want) {
		t.Errorf("%v, and of empty: %v", arms, s.noEmpty)
	}
}

func TestEmptyLeavesOutMissingHooks(t *testing.T) {
	need.File(t, "/sys/kernel/btf/vmlinux")
	_, err := attachEmpty(map[string]*ebpf.ProgramSpec{"xos_x": {Name: "xos_x", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "no_such_hook", License: "GPL"}})
	if !xos.Is(err, xos.NotSupported) || !strings.Contains(err.Error(), "none of the hooks") {
		t.Error(err)
	}
}

func TestAskedPrints(t *testing.T) {
	var out bytes.Buffer
	asked{"stat": {"inode_getattr": 1, "inode_permission": 1.002, "bpf": 0.03}, "kill": {"task_kill": 1}}.print(&out)
	const want = "# kill runs 1.0 LSM programs: task_kill 1.0\n# stat runs 2.0 LSM programs: inode_getattr 1.0, inode_permission 1.0\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	for names, want := range map[string][]arm{
		"guard,empty":                           {none, empty, guarded},
		"none":                                  {none},
		"empty,guard,audited,landlock,apparmor": every,
	} {
		if got, err := choose(names); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", names, got, err)
		}
	}
	for _, names := range []string{"", "empty,", "nothing"} {
		if got, err := choose(names); !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: %v, %v", names, got, err)
		}
	}
}

// What drifts evenly through a round must meet all arms alike.
func TestTurnsAreFair(t *testing.T) {
	for n := 1; n <= len(every); n++ {
		at := map[arm]int{}
		round := turns(every[:n])
		for i, a := range round {
			at[a] += i
		}
		for _, a := range every[:n] {
			if at[a] != len(round)-1 {
				t.Errorf("of %d arms, %s has its turns at %v", n, a, slices.Sorted(maps.Values(at)))
			}
		}
	}
}

func TestFiguresShowTheArms(t *testing.T) {
	all := figures{}
	all.add("kill_user ns", none, []float64{100, 90, 110})
	all.add("kill_user ns", empty, []float64{130})
	all.add("kill_user ns", guarded, []float64{150})
	all.add("tar_user ms", none, []float64{10})
	all.add("tar_user ms", guarded, []float64{11})
	var out bytes.Buffer
	all.print(&out, every)
	const want = `BENCH guard_kill_user_none 100 ns
BENCH guard_kill_user_empty_ratio 1.300 x
BENCH guard_kill_user_guard_ratio 1.500 x
BENCH guard_kill_user_guard_above_empty 0.200 x
BENCH guard_tar_user_none 10 ms
BENCH guard_tar_user_guard_ratio 1.100 x
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
