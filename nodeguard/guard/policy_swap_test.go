package guard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/test/need"
)

// scarce makes a node of a device that is not everybody's, and harmless to open:
// a local user does so.
func (s stage) scarce(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/misc")
	if err != nil {
		t.Fatal(err)
	}
	minors := map[string]int{}
	for line := range strings.Lines(string(data)) {
		var minor int
		var name string
		if n, _ := fmt.Sscan(line, &minor, &name); n == 2 {
			minors[name] = minor
		}
	}
	for _, name := range []string{"cpu_dma_latency", "vga_arbiter", "userfaultfd", "hpet", "loop-control", "btrfs-control", "autofs", "rfkill"} {
		if minor, ok := minors[name]; ok {
			at := node(t, name, unix.Mkdev(10, uint32(minor)))
			if s.command(t, local, "use", at, "-").Run() == nil {
				return at
			}
		}
	}
	need.Missing(t, "a device to open", fmt.Sprintf("none of %v is one", minors))
	return ""
}

// node makes a device's node that everybody may open, as far as its mode goes. On
// /tmp there may be none.
func node(t *testing.T, name string, dev uint64) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev", "xos-dev-")
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
	at := s.scarce(t)
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
	users := []uint32{alice, mal}
	if level, _ := s.Level(); level == nodeguard.LevelA {
		delete(none, mal) // who is of no VO runs nothing there
		users = users[:1]
	}
	check("without policies", none)
	for _, everybodys := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		for _, who := range users {
			if out, err := s.command(t, who, "use", everybodys, "-").Output(); err != nil {
				t.Errorf("%s of uid %d: %s", everybodys, who, out)
			}
		}
	}
	site := isolation.Site{Devices: map[isolation.Class][]string{"clock": {filepath.Join(filepath.Dir(at), filepath.Base(at)[:2]+"*")}, "gpu": {"/dev/xos-no-such"}}}
	wants := isolation.VO{Name: "physics", Policy: isolation.Policy{Devices: []isolation.Class{"clock", "gpu", "other"}}}
	s.isolate(t, site, wants, isolation.VO{Name: "chemistry"})
	check("physics was given it", map[uint32]bool{alice: true, bob: true, carol: false, local: true})
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
// never fails. XOS_RELOADS says how often; a thousand takes a minute.
func TestRootPoliciesAreSwappedWithoutAGap(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := s.scarce(t)
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
	reloads := 40
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

// TestRootVOLowersItsCeilings: its own bound what its jobs use if they are less
// than the site's; one that this machine can make nothing of starts no job.
func TestRootVOLowersItsCeilings(t *testing.T) {
	s := newStage(t)
	s.Guard.Close()
	s.cfg.JobCeilings = guard.Ceilings{Processes: 300}
	g, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Guard = g
	t.Cleanup(func() { g.Close() })
	a := xos.Account{User: "alice", VO: "physics"}
	for i, tc := range []struct {
		own   isolation.Ceilings
		most  string // "" starts no job
		later isolation.Ceilings
	}{
		{isolation.Ceilings{}, "300", isolation.Ceilings{Processes: "50"}},
		{isolation.Ceilings{Processes: "200"}, "200", isolation.Ceilings{}},
		{isolation.Ceilings{Processes: "400"}, "300", isolation.Ceilings{CPUs: "1"}},
		{isolation.Ceilings{CPUs: "0.001"}, "", isolation.Ceilings{}},
	} {
		vo := isolation.VO{Name: "physics", Policy: isolation.Policy{Ceilings: tc.own}}
		s.isolate(t, isolation.Site{}, vo)
		path, err := s.JobCgroup(t.Context(), a, "j1")
		if (err == nil) != (tc.most != "") || err != nil && !xos.Is(err, xos.Invalid) {
			t.Errorf("%d: %v", i, err)
		}
		if err != nil {
			continue
		}
		of := filepath.Join(s.cfg.CgroupRoot, filepath.Dir(path), "pids.max")
		if got, err := os.ReadFile(of); os.IsNotExist(err) {
			t.Log("no controller of processes here: only whether a job may start was tried")
		} else if strings.TrimSpace(string(got)) != tc.most {
			t.Errorf("%d: %s has %s, want %s", i, of, got, tc.most)
		}
		vo.Policy.Ceilings = tc.later // at once, for jobs that run
		s.isolate(t, isolation.Site{}, vo)
		want := "300"
		if tc.later.Processes != "" {
			want = tc.later.Processes
		}
		if got, err := os.ReadFile(of); err == nil && strings.TrimSpace(string(got)) != want {
			t.Errorf("%d, later: %s has %s, want %s", i, of, got, want)
		}
	}
}
