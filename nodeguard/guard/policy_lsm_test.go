package guard_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

// TestRootLSMShares: on a kernel that has these checks, of what the prey left
// open that can be reached for which both share, and nothing else.
func TestRootLSMShares(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	// Each needs one aim and no other.
	acts := map[isolation.Aim][]string{
		"signals": {"kill", "tgkill"}, "scheduling": {"getsid", "getpgid", "sched_getaffinity"}, "files": {"open", "stat"},
		"sockets": {"abstract: stream", "abstract: datagram", "abstract: sendto"}, "ipc": {"shmat", "msgsnd"}, "keys": {"key"},
	}
	for aim := range acts {
		one := []isolation.Aim{aim}
		s.isolate(t, isolation.Site{Share: one}, sharing("physics", one, "chemistry"), sharing("chemistry", one, "*"))
		failed := s.hunt(t, "chemistry", 0, p)
		for other, names := range acts {
			for _, name := range names {
				if why, no := failed[name]; no == (other == aim) {
					t.Errorf("%s is shared: %s: failed %t %s", aim, name, no, why)
				}
			}
		}
	}
	s.isolate(t, isolation.Site{Share: isolation.Aims}, sharing("physics", isolation.Aims, "*"), isolation.VO{Name: "chemistry"})
	failed := s.hunt(t, "chemistry", 0, p)
	for _, name := range slices.Sorted(maps.Keys(prowl)) {
		if failed[name] == "" {
			t.Errorf("physics alone shares everything: %s works", name)
		}
	}
}

// TestRootLSMListsSockets: a site may let VOs' processes see the machine's sockets,
// and a VO still forbids that to its own. In a network namespace of its own a process
// sees what is there, and not the machine's.
func TestRootLSMListsSockets(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	lists := []string{"lists: TCP", "lists: unix", "lists: ss"}
	sees := func(uid uint32, vo xos.VOName, yes bool, why string) {
		t.Helper()
		failed := s.hunt(t, vo, uid, prey{})
		for _, name := range append(lists, "lists: another's") {
			if (failed[name] == "") != yes {
				t.Errorf("%s: %s in %s: %q", why, name, vo, failed[name])
			}
		}
	}
	sees(alice, "physics", false, "nothing is permitted")
	permits := isolation.Site{Permit: []isolation.Restriction{isolation.SocketLists}}
	s.isolate(t, permits, isolation.VO{Name: "physics", Policy: isolation.Policy{Forbid: []isolation.Restriction{isolation.SocketLists}}})
	sees(carol, "chemistry", true, "the site permits it")
	sees(alice, "physics", false, "her VO forbids it")
	s.isolate(t, isolation.Site{})
	sees(carol, "chemistry", false, "the site permits nothing any more")

	own := s.job(t, "chemistry", carol, "hunt", "{}", "-")
	own.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
	own.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(carol), Size: 1}}
	own.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(carol), Size: 1}}
	own.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
	out, err := own.Output()
	var failed map[string]string
	if err != nil || json.Unmarshal(out, &failed) != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	for _, name := range lists {
		if failed[name] != "" {
			t.Errorf("in a network namespace of her own, %s: %s", name, failed[name])
		}
	}
	if failed["lists: another's"] == "" {
		t.Error("from a network namespace of her own she sees the machine's sockets")
	}
}

// TestRootLSMForbids: a VO's own processes are kept from what its policy forbids,
// and another VO's are not.
func TestRootLSMForbids(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	setuid := s.bin + "-setuid"
	data, err := os.ReadFile(nothing)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(setuid, data, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(setuid) })
	if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	runs := func(uid uint32, program, verb string) error {
		cmd := s.command(t, uid, verb, "-", "-")
		cmd.Path, cmd.Args[0] = program, program
		return cmd.Run()
	}
	forbids := func(r ...isolation.Restriction) {
		t.Helper()
		s.isolate(t, isolation.Site{}, isolation.VO{Name: "physics", Policy: isolation.Policy{Forbid: r}})
	}
	for _, tc := range []struct {
		forbid        isolation.Restriction
		program, verb string
	}{{"own_programs", p.Program, "nothing"}, {"setuid", setuid, "nothing"}, {"user_namespaces", s.bin, "userns"}} {
		forbids()
		if err := runs(bob, tc.program, tc.verb); err != nil {
			t.Errorf("before %s is forbidden: %v", tc.forbid, err)
		}
		forbids(tc.forbid)
		if err := runs(bob, tc.program, tc.verb); err == nil {
			t.Errorf("%s is forbidden, and works", tc.forbid)
		}
		if err := runs(bob, s.bin, "nothing"); err != nil {
			t.Errorf("%s is forbidden: what it does not concern fails: %v", tc.forbid, err)
		}
		if tc.program == p.Program {
			continue // it is alice's: carol may never
		}
		if err := runs(carol, tc.program, tc.verb); err != nil {
			t.Errorf("%s is forbidden to another VO: %v", tc.forbid, err)
		}
	}
}
