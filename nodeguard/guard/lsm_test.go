package guard_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// needLSM makes a stage at level A. A kernel that has no LSM programs must say
// so instead, and be at level C; XOS_LSM, set where tests run in virtual
// machines, says that this kernel has them.
func needLSM(t *testing.T) (stage, bool) {
	t.Helper()
	s := newStage(t)
	level, features := s.Level()
	var missing []string
	for _, f := range features {
		if strings.HasPrefix(f.Name, "lsm") && !f.Have {
			missing = append(missing, f.Name+": "+f.Why)
		}
	}
	if level == nodeguard.LevelA && len(missing) == 0 {
		return s, true
	}
	if os.Getenv("XOS_LSM") != "" {
		t.Fatalf("level %s: %s", level, strings.Join(missing, "\n"))
	}
	if level != nodeguard.LevelC || len(missing) != 1 || !strings.Contains(missing[0], "refuses BPF LSM programs") {
		t.Errorf("a kernel without LSM programs is at level %s: %q", level, missing)
	}
	return s, false
}

// job starts the actor as uid in a job's cgroup of a VO, or, for "", in that of
// the machine's own processes.
func (s stage) job(t *testing.T, vo xos.VOName, uid uint32, args ...string) *exec.Cmd {
	t.Helper()
	cmd := s.command(t, uid, args...)
	if vo == "" {
		return cmd
	}
	path, err := s.JobCgroup(t.Context(), xos.Account{User: "any", VO: vo}, "j1")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(s.cfg.CgroupRoot, path), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	cmd.SysProcAttr.CgroupFD = fd
	return cmd
}

// prey starts alice's process, which leaves everything open.
func (s stage) prey(t *testing.T) prey {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "xos-prey-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := s.job(t, "physics", alice, "prey", dir, "-")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	var p prey
	if err := json.NewDecoder(out).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// hunt has somebody try everything on alice's process, and gives what failed.
func (s stage) hunt(t *testing.T, vo xos.VOName, uid uint32, p prey) map[string]string {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.job(t, vo, uid, "hunt", string(data), "-")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hunting in VO %q: %v\n%s", vo, err, out)
	}
	var failed map[string]string
	if err := json.Unmarshal(out, &failed); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return failed
}

// TestRootLSMKeepsVOsApart lets the superuser himself try: in a cgroup of the
// same VO everything works that does outside of all, in another's nothing does.
func TestRootLSMKeepsVOsApart(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	p.Pins, p.Cgroup = s.cfg.PinDir, filepath.Join(s.dir, "cgroup.procs")
	// What the guard keeps from all VOs alike, and what must not be tried where
	// it works.
	guarded := []string{"bpf", "pin: open", "pin: unlink", "pin: rmdir", "pin: rename", "cgroup: leave",
		"socket: vsock", "socket: SMC", "netlink: to others", "netlink: processes", "lists: TCP", "lists: unix", "lists: another's", "lists: ss"}

	toLose := func() {
		t.Helper()
		if err := os.Mkdir(filepath.Join(s.cfg.PinDir, "empty"), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		lost := filepath.Join(s.cfg.PinDir, "of_no_use")
		if err := m.Pin(lost); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(lost) })
	}
	toLose()
	if failed := s.hunt(t, "", 0, p); len(failed) != 0 {
		t.Errorf("the machine's own root fails in %v", failed)
	}
	toLose()
	within := s.hunt(t, "physics", 0, p)
	for name, why := range within {
		if !slices.Contains(guarded, name) {
			t.Errorf("within the VO, %s: %s", name, why)
		}
	}
	across := s.hunt(t, "chemistry", 0, p)
	for _, name := range append(slices.Collect(namesOf(prowl)), guarded...) {
		why, refused := across[name]
		if !refused {
			t.Errorf("from another VO, %s works", name)
		} else if !strings.Contains(why, "permi") && !strings.Contains(why, "denied") {
			t.Errorf("from another VO, %s: %s", name, why)
		}
	}
	if why := across["own sockets"]; why != "" {
		t.Errorf("what no process reaches another by is refused too: %s", why)
	}
	for _, name := range guarded {
		if within[name] == "" {
			t.Errorf("in a VO, %s works", name)
		}
	}
	// By uid alone, outside of all cgroups, the answer is the same.
	for name, why := range s.hunt(t, "", bob, p) {
		if slices.Contains([]string{"open", "stat", "execute", "abstract: stream", "abstract: datagram", "getsid", "getpgid", "sched_getaffinity", "shmat", "shm: any", "msgsnd"}, name) {
			t.Errorf("bob, %s: %s", name, why)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	failed := s.hunt(t, "", carol, p)
	for _, name := range []string{"open", "stat", "io_uring: open", "io_uring: connect", "io_uring: open, polled", "io_uring: connect, polled", "execute", "abstract: stream", "abstract: datagram", "getsid", "getpgid", "sched_getaffinity", "shmat", "shm: any", "msgsnd"} {
		if failed[name] == "" {
			t.Errorf("carol, %s works", name)
		}
	}
	// Root in a user namespace of hers is nobody more.
	mapped := s.job(t, "chemistry", carol, "hunt", string(text), "-")
	mapped.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
	mapped.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(carol), Size: 1}}
	mapped.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(carol), Size: 1}}
	mapped.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
	out, err := mapped.Output()
	clear(failed)
	if err != nil || json.Unmarshal(out, &failed) != nil {
		t.Fatalf("in a user namespace: %v\n%s", err, out)
	}
	for _, name := range append(slices.Collect(namesOf(prowl)), guarded...) {
		if failed[name] == "" {
			t.Errorf("from root in a user namespace of another VO, %s works", name)
		}
	}
	// A grid uid of no VO does not even start.
	if out, err := s.command(t, mal, "hunt", "{}", "-").CombinedOutput(); err == nil || !strings.Contains(err.Error(), "permitted") {
		t.Errorf("a uid without a VO starts: %v %s", err, out)
	}
}

// TestRootLSMOutlivesTheGuard: what is pinned holds without a daemon, and a
// successor is at level A with one link a hook.
func TestRootLSMOutlivesTheGuard(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	s.Guard.Close()
	failed := s.hunt(t, "", carol, p)
	for _, name := range []string{"open", "abstract: stream", "getsid"} {
		if failed[name] == "" {
			t.Errorf("without a guard carol's %s works", name)
		}
	}
	links := func() int {
		pins, _ := filepath.Glob(filepath.Join(s.cfg.PinDir, "link_lsm_*"))
		return len(pins)
	}
	before := links()
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if level, features := next.Level(); level != nodeguard.LevelA {
		t.Errorf("the successor is at level %s: %+v", level, features)
	}
	if n := links(); n != before || n < 25 {
		t.Errorf("%d links were pinned, now %d", before, n)
	}
}

// TestRootLSMLosingAHook: a hook that does not fire any more is found out.
func TestRootLSMLosingAHook(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	failed := func() (names []string) {
		for _, f := range s.Test() {
			if !f.Have {
				names = append(names, f.Name)
			}
		}
		return names
	}
	if bad := failed(); len(bad) != 0 {
		t.Errorf("these do not hold: %q", bad)
	}
	pins, _ := filepath.Glob(filepath.Join(s.cfg.PinDir, "link_lsm_*_task_getsid"))
	if len(pins) != 1 || os.Remove(pins[0]) != nil {
		t.Fatalf("pins of the hook: %q", pins)
	}
	// The kernel lets go of the program some time after its pin.
	var bad []string
	for deadline := time.Now().Add(20 * time.Second); !slices.Equal(bad, []string{"lsm scheduling"}); bad = failed() {
		if time.Now().After(deadline) {
			t.Errorf("without one hook these do not hold: %q", bad)
			return
		}
	}
}
