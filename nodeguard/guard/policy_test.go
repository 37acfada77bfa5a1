package guard_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard/guard"
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

// latency is a device that is not everybody's, and harmless to open.
var latency = unix.Mkdev(10, 259)

// node makes a device's node that everybody may open, as far as its mode goes.
func node(t *testing.T, name string, dev uint64) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "xos-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := filepath.Join(dir, name)
	if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(dev)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at, 0o666); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRootDevicesAreGiven(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := node(t, "latency", latency)
	check := func(what string, allowed map[uint32]bool) {
		t.Helper()
		for who, want := range allowed {
			out, err := s.command(t, who, "use", at, "-").Output()
			if (err == nil) != want || !want && !strings.Contains(string(out), "not permitted") {
				t.Errorf("%s: uid %d: %s (want allowed %t)", what, who, strings.TrimSpace(string(out)), want)
			}
		}
	}
	none := map[uint32]bool{alice: false, carol: false, mal: false, local: true}
	check("without policies", none)
	for _, everybodys := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		for _, who := range []uint32{alice, mal} {
			if out, err := s.command(t, who, "use", everybodys, "-").Output(); err != nil {
				t.Errorf("%s of uid %d: %s", everybodys, who, out)
			}
		}
	}
	site := isolation.Site{Devices: map[isolation.Class][]string{"clock": {filepath.Join(filepath.Dir(at), "lat*")}, "gpu": {"/dev/xos-no-such"}}}
	wants := isolation.VO{Name: "physics", Policy: isolation.Policy{Devices: []isolation.Class{"clock", "gpu", "other"}}}
	s.isolate(t, site, wants, isolation.VO{Name: "chemistry"})
	check("physics was given it", map[uint32]bool{alice: true, bob: true, carol: false, mal: false, local: true})
	s.isolate(t, isolation.Site{}, wants)
	check("the site has none of the class", none)
}

// repeat does the same over and over until its input ends, and tells how often
// it did and how often that worked: it connects to an address, or opens a file.
func repeat(verb, at string) int {
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var n repeated
	for {
		select {
		case <-over:
			json.NewEncoder(os.Stdout).Encode(n)
			return 0
		default:
		}
		var err error
		switch verb {
		case "open":
			err = opens(at, os.O_RDONLY)
		default: // no connection is left behind in TIME_WAIT
			var c net.Conn
			if c, err = net.DialTimeout(verb, at, 5*time.Second); err == nil {
				if tcp, ok := c.(*net.TCPConn); ok {
					tcp.SetLinger(0)
				}
				c.Close()
			}
		}
		n.Tries++
		if err == nil {
			n.Worked++
		} else {
			n.Said = err.Error()
		}
	}
}

type repeated struct {
	Tries, Worked int
	Said          string // by the last that did not work
}

// repeating starts that as uid, and gives what ends it.
func (s stage) repeating(t *testing.T, uid uint32, verb, at string) func() repeated {
	t.Helper()
	cmd := s.command(t, uid, "repeat", verb, at)
	in, _ := cmd.StdinPipe()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return func() (n repeated) {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out.String()), &n); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		return n
	}
}

// TestRootPoliciesAreSwappedWithoutAGap: while policies are replaced over and over,
// and guards too, what all of them deny never works and what all of them allow
// never fails. XOS_RELOADS says how often; a thousand takes 40 s.
func TestRootPoliciesAreSwappedWithoutAGap(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := node(t, "latency", latency)
	site := isolation.Site{Share: network, Devices: map[isolation.Class][]string{"clock": {at}}}
	// Biology is physics' friend in both; chemistry wants to be.
	with := func(of isolation.VO, classes ...isolation.Class) isolation.VO {
		of.Policy.Devices = classes
		return of
	}
	chemistry := sharing("chemistry", network, "*")
	chemistry.Policy.Devices = []isolation.Class{"none"}
	worlds := [][]isolation.VO{
		{with(sharing("physics", network, "biology"), "clock"), chemistry, with(sharing("biology", network, "physics"), "clock")},
		{with(sharing("physics", network, "biology", "law"), "clock"), sharing("chemistry", isolation.Aims, "physics"), with(sharing("biology", network, "*"), "clock"),
			sharing("law", network, "physics")},
	}
	s.isolate(t, site, worlds[0]...)
	port := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	datagrams := s.listen(t, alice, "udp4", "127.0.0.1:0")
	denied := map[string]func() repeated{"carol's tcp": s.repeating(t, carol, "tcp4", port), "carol's udp": s.repeating(t, carol, "udp4", datagrams),
		"carol's device": s.repeating(t, carol, "open", at), "a stranger's device": s.repeating(t, mal, "open", at)}
	allowed := map[string]func() repeated{"bob's tcp": s.repeating(t, bob, "tcp4", port), "dave's udp": s.repeating(t, dave, "udp4", datagrams),
		"dave's device": s.repeating(t, dave, "open", at)}
	reloads := 100
	if n, err := strconv.Atoi(os.Getenv("XOS_RELOADS")); err == nil {
		reloads = n
	}
	began := time.Now()
	g := s.Guard
	for i := range reloads {
		if err := g.Isolate(site, worlds[(i+1)%2]); err != nil {
			t.Fatal(err)
		}
		if i%25 == 24 { // a successor comes, before its predecessor goes and after
			old := g
			if i%50 == 24 {
				old.Close()
			}
			next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			if i%50 != 24 {
				old.Close()
			}
			g = next
		}
	}
	t.Logf("%d policies in %v", reloads, time.Since(began))
	for who, end := range denied {
		n := end()
		if n.Worked != 0 || n.Tries < 50 || !strings.Contains(n.Said, "not permitted") {
			t.Errorf("%s: %+v, and is denied", who, n)
		}
		t.Logf("%s: %+v", who, n)
	}
	for who, end := range allowed {
		n := end()
		if n.Worked != n.Tries || n.Tries < 50 {
			t.Errorf("%s: %+v, and is allowed", who, n)
		}
		t.Logf("%s: %+v", who, n)
	}
}

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
