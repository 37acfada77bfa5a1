package guard_test

import (
	"maps"
	"os"
	"slices"
	"testing"

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
	data, err := os.ReadFile(s.bin)
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
