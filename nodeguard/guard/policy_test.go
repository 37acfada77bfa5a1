package guard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

// sharing is a VO that shares some aims with others.
func sharing(name xos.VOName, aims []isolation.Aim, with ...xos.VOName) isolation.VO {
	vo := isolation.VO{Name: name, From: isolation.FromVO, Policy: isolation.Policy{Share: map[isolation.Aim][]xos.VOName{}}}
	for _, aim := range aims {
		vo.Policy.Share[aim] = with
	}
	return vo
}

var network = []isolation.Aim{"network"}

func (s stage) isolate(t *testing.T, site isolation.Site, vos ...isolation.VO) {
	t.Helper()
	if err := s.Isolate(site, vos); err != nil {
		t.Fatal(err)
	}
}

// TestAimsAreTheKernels: an aim's place in isolation.Aims is its number.
func TestAimsAreTheKernels(t *testing.T) {
	want := map[isolation.Aim]bpf.VonetXosAim{
		"signals": bpf.VonetXosAimXOS_AIM_SIGNALS, "debug": bpf.VonetXosAimXOS_AIM_DEBUG, "scheduling": bpf.VonetXosAimXOS_AIM_SCHEDULING,
		"files": bpf.VonetXosAimXOS_AIM_FILES, "exec": bpf.VonetXosAimXOS_AIM_EXEC, "sockets": bpf.VonetXosAimXOS_AIM_SOCKETS,
		"ipc": bpf.VonetXosAimXOS_AIM_IPC, "keys": bpf.VonetXosAimXOS_AIM_KEYS, "network": bpf.VonetXosAimXOS_AIM_NETWORK,
	}
	if len(want) != int(bpf.VonetXosAimXOS_AIMS) || len(isolation.Aims) != len(want) || len(isolation.Restrictions)+1 != int(bpf.VonetXosSurfaceXOS_SURFACES) {
		t.Fatalf("%d aims, %d of the kernel's", len(isolation.Aims), len(want))
	}
	for aim, place := range want {
		if isolation.Aims[place] != aim {
			t.Errorf("%s is not at its place", aim)
		}
	}
	for r, place := range map[isolation.Restriction]bpf.VonetXosSurface{"perf": bpf.VonetXosSurfaceXOS_SURFACE_PERF, "user_namespaces": bpf.VonetXosSurfaceXOS_SURFACE_USERNS,
		"setuid": bpf.VonetXosSurfaceXOS_SURFACE_SETUID, "own_programs": bpf.VonetXosSurfaceXOS_SURFACE_OWN_PROGRAMS} {
		if isolation.Restrictions[place-1] != r {
			t.Errorf("%s is not at its place", r)
		}
	}
}

// TestRootTableIsTheModel: what the kernel's table answers for each two VOs is
// what their policies mean.
func TestRootTableIsTheModel(t *testing.T) {
	s := newStage(t)
	names := []xos.VOName{"physics", "chemistry", "biology", "history", "law"}
	shared, apart := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		site := isolation.Site{}
		for _, aim := range isolation.Aims {
			if r.IntN(5) > 0 {
				site.Share = append(site.Share, aim)
			}
		}
		now := time.Now()
		var vos []isolation.VO
		for _, name := range names {
			vo := isolation.VO{Name: name, Policy: isolation.Policy{Share: map[isolation.Aim][]xos.VOName{}}}
			for _, aim := range isolation.Aims {
				for range r.IntN(4) {
					vo.Policy.Share[aim] = append(vo.Policy.Share[aim], append(names, isolation.Any, isolation.Any)[r.IntN(len(names)+2)])
				}
			}
			if r.IntN(3) == 0 {
				vo.Until = now.Add(time.Duration(r.IntN(3)-1) * time.Hour)
			}
			vos = append(vos, vo)
		}
		s.isolate(t, site, vos...)
		for _, a := range vos {
			for _, b := range vos {
				for _, aim := range isolation.Aims {
					got, err := s.Shares(a.Name, b.Name, aim)
					want := site.Decide(a, b, aim, now)
					if err != nil || got != want.Shared {
						t.Fatalf("seed %d: %s and %s, %s: the table says %t (%v), but %+v", seed, a.Name, b.Name, aim, got, err, want)
					}
					if want.Shared {
						shared++
					} else {
						apart++
					}
				}
			}
		}
	}
	if shared < 1000 || apart < 1000 {
		t.Errorf("%d shared, %d apart: too few of one to prove anything", shared, apart)
	}
	// What is gone from the policies is gone from the table.
	s.isolate(t, isolation.Site{Share: isolation.Aims})
	for _, aim := range isolation.Aims {
		if got, err := s.Shares("physics", "chemistry", aim); got || err != nil {
			t.Errorf("without policies %s is shared (%v)", aim, err)
		}
	}
}

// TestRootTableOfManyVOs: ten thousand VOs, each of which shares with three.
func TestRootTableOfManyVOs(t *testing.T) {
	s := newStage(t)
	const many = 10000
	name := func(i int) xos.VOName { return xos.VOName(fmt.Sprintf("vo%d", (i+many)%many)) }
	var vos []isolation.VO
	for i := range many {
		vos = append(vos, sharing(name(i), network, name(i-1), name(i+1), name(i+2)))
	}
	began := time.Now()
	s.isolate(t, isolation.Site{Share: network}, vos...)
	t.Logf("first in force after %v", time.Since(began))
	began = time.Now()
	vos[0].Policy.Share["network"] = nil
	s.isolate(t, isolation.Site{Share: network}, vos...)
	t.Logf("changed after %v", time.Since(began))
	for _, tc := range []struct {
		a, b int
		want bool
	}{{5000, 5001, true}, {5001, 5000, true}, {5000, 5002, false}, {0, 1, false}, {many - 1, 0, false}, {2, 1, true}} {
		if got, err := s.Shares(name(tc.a), name(tc.b), "network"); err != nil || got != tc.want {
			t.Errorf("%d and %d: %t %v", tc.a, tc.b, got, err)
		}
	}
}

// TestRootNetworkIsShared: a port of another VO is reached if both VOs and the
// site want it so, and not for a moment longer.
func TestRootNetworkIsShared(t *testing.T) {
	s := newStage(t)
	s.people(t)
	permits := isolation.Site{Share: network}
	both := []isolation.VO{sharing("physics", network, "chemistry"), sharing("chemistry", network, "physics")}
	ports := map[string]string{
		"tcp4": s.listen(t, alice, "tcp4", "127.0.0.1:0"), "tcp6": s.listen(t, alice, "tcp6", "[::1]:0"),
		"udp4": s.listen(t, alice, "udp4", "127.0.0.1:0"), "udp6": s.listen(t, alice, "udp6", "[::1]:0"),
	}
	check := func(what string, allowed map[uint32]bool) {
		t.Helper()
		for network, at := range ports {
			for who, want := range allowed {
				out, err := s.command(t, who, "connect", network, at).Output()
				if (err == nil) != want || !want && !strings.Contains(string(out), "not permitted") {
					t.Errorf("%s: %s of uid %d: %s (want allowed %t)", what, network, who, strings.TrimSpace(string(out)), want)
				}
			}
		}
	}
	only := map[uint32]bool{bob: true, carol: false, dave: false, mal: false}
	check("without policies", only)
	s.isolate(t, permits, both...)
	check("both want it", map[uint32]bool{bob: true, carol: true, dave: false, mal: false})
	// Back, too: it is mutual.
	if out, err := s.command(t, alice, "connect", "tcp4", s.listen(t, carol, "tcp4", "127.0.0.1:0")).Output(); err != nil {
		t.Errorf("from alice to carol: %s", out)
	}
	for what, wrong := range map[string][]isolation.VO{
		"physics alone":    {both[0], {Name: "chemistry"}},
		"chemistry alone":  {{Name: "physics"}, both[1]},
		"chemistry is old": {both[0], {Name: "chemistry", Policy: both[1].Policy, Until: time.Now().Add(-time.Second)}},
		"another aim":      {both[0], sharing("chemistry", []isolation.Aim{"sockets", "files"}, "*")},
		"one is not known": both[:1],
	} {
		s.isolate(t, permits, both...)
		s.isolate(t, permits, wrong...)
		check(what, only)
	}
	s.isolate(t, isolation.Site{Share: []isolation.Aim{"files"}}, both...)
	check("the site does not", only)
	// Whoever wants it, with whoever wants it.
	s.isolate(t, permits, sharing("physics", network, "*"), sharing("chemistry", network, "*"), sharing("biology", network, "law"))
	check("with any", map[uint32]bool{bob: true, carol: true, dave: false, mal: false})
	// It ends by itself, and a guard that is gone is not needed for it.
	both[0].Until = time.Now().Add(2 * time.Second)
	s.isolate(t, permits, both...)
	s.Guard.Close()
	check("with the guard gone", map[uint32]bool{bob: true})
	deadline := time.Now().Add(10 * time.Second)
	for s.command(t, carol, "connect", "tcp4", ports["tcp4"]).Run() == nil {
		if time.Now().After(deadline) {
			t.Fatal("what is shared does not end")
		}
	}
	check("its time is over", only)
}

// TestRootPoliciesAreExplained: root is told of all, with who decided; somebody
// of a VO of hers, and not of who names hers.
func TestRootPoliciesAreExplained(t *testing.T) {
	s := newStage(t)
	s.people(t)
	site := isolation.Site{Share: network, Forbid: []isolation.Restriction{"perf"}, Devices: map[isolation.Class][]string{"gpu": {"/dev/xos-no-such"}}}
	physics := sharing("physics", []isolation.Aim{"network", "files"}, "chemistry")
	physics.Policy.Devices = []isolation.Class{"gpu", "tape"}
	s.isolate(t, site, physics, sharing("chemistry", network, "*"), sharing("biology", network, "chemistry"), isolation.VO{Name: "law", From: isolation.FromDefault})
	as := func(uid uint32) context.Context {
		return rpc.WithPeer(t.Context(), rpc.Peer{Unix: true, UID: uid})
	}
	lines := func(p *xosv1.GuardPolicy) (all []string) {
		for _, w := range p.GetSharing() {
			all = append(all, fmt.Sprintf("%s %s %t: %s", w.Aim, w.With, w.Shared, w.Why))
		}
		return all
	}
	status, err := s.GuardStatus(as(0), connect.NewRequest(&xosv1.GuardStatusRequest{}))
	if err != nil || len(status.Msg.Policies) != 3 {
		t.Fatalf("%v %v", status, err)
	}
	p := status.Msg.Policies[2]
	want := []string{"files chemistry false: this machine's site does not permit to share files",
		"network chemistry true: physics and chemistry share network with each other, and this machine's site permits it"}
	if d := cmp.Diff(want, lines(p)); d != "" || p.Vo != "physics" || p.SetBy != string(isolation.FromVO) {
		t.Errorf("%+v\n%s", p, d)
	}
	if !slices.Equal(p.Forbidden, []string{"perf", "socket_lists"}) || !slices.Equal(p.Devices, []string{"gpu"}) {
		t.Errorf("forbidden %q, devices %q", p.Forbidden, p.Devices)
	}
	if status, err := s.GuardStatus(as(carol), connect.NewRequest(&xosv1.GuardStatusRequest{})); err != nil || len(status.Msg.Policies) != 0 {
		t.Errorf("carol is told %v (%v)", status.Msg.Policies, err)
	}
	s.isolate(t, site, physics, sharing("chemistry", network), sharing("biology", network, "chemistry"))
	for uid, want := range map[uint32][]string{
		carol: nil,
		0: {"network biology false: chemistry does not share network with biology (set by the VO)",
			"network physics false: chemistry does not share network with physics (set by the VO)"},
	} {
		cmd := s.command(t, carol, "repeat", "open", "/dev/null")
		in, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found, err := s.GuardExplain(as(uid), connect.NewRequest(&xosv1.GuardExplainRequest{Pid: int32(cmd.Process.Pid)}))
		in.Close()
		cmd.Wait()
		if err != nil {
			t.Fatal(err)
		}
		got := lines(found.Msg.Policy)
		if uid == 0 {
			got = slices.DeleteFunc(got, func(l string) bool { return strings.HasPrefix(l, "files ") })
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("uid %d is told of chemistry: %s", uid, d)
		}
	}
}
