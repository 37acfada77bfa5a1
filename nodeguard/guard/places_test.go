package guard_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// rival's bytes would be counted where alice's are: XOS_PLACES of bpf/account.h.
const rival = alice + 4096

// holder says who has the place of alice and her rival.
func (s stage) holder(t *testing.T) uint32 {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, bpf.AccountMapPlaces), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var each []bpf.AccountXosPlace
	if err := m.Lookup(uint32(alice%4096), &each); err != nil {
		t.Fatal(err)
	}
	return uint32(each[0].Number)
}

// sent gives what an account's sessions sent and received.
func sent(t *testing.T, g *guard.Guard, who xos.Account, uid uint32) (out, in uint64) {
	t.Helper()
	st, err := g.Stay(t.Context(), who, uid)
	if err != nil {
		t.Fatal(err)
	}
	return st.NetOut, st.NetIn
}

// TestRootOnePlaceForTwo: where two would be counted in one place, each has all of
// her own bytes and none of the other's, whoever has the place, and whoever gets it.
func TestRootOnePlaceForTwo(t *testing.T) {
	s := metered(t)
	ofRival := xos.Account{User: "rival", VO: "chemistry"}
	if err := s.Login(t.Context(), ofRival, rival); err != nil {
		t.Fatal(err)
	}
	const many = workers * rounds * (payload + ipAndUDP)
	both := func() {
		t.Helper()
		t.Run("at once", func(t *testing.T) {
			for uid, times := range map[uint32]int{alice: 1, rival: 2} {
				port := s.listen(t, uid, "udp4", "127.0.0.1:0")
				t.Run(strconv.Itoa(int(uid)), func(t *testing.T) {
					t.Parallel()
					for range times {
						s.run(t, uid, "sends", port, "-")
					}
				})
			}
		})
	}
	check := func(when string, hasPlace uint32, ofAliceNow, ofRivalNow uint64) {
		t.Helper()
		if got := s.holder(t); got != hasPlace {
			t.Errorf("%s: the place is %d's, want %d's", when, got, hasPlace)
		}
		for _, f := range []struct {
			who  xos.Account
			uid  uint32
			want uint64
		}{{ofAlice, alice, ofAliceNow}, {ofRival, rival, ofRivalNow}} {
			if out, in := sent(t, s.Guard, f.who, f.uid); out != f.want || in != f.want {
				t.Errorf("%s: %s sent %d and received %d, want %d", when, f.who, out, in, f.want)
			}
		}
	}
	both()
	check("side by side", alice, many, 2*many)
	if err := s.Arrive(ofAlice, alice); err != nil {
		t.Fatal(err)
	}
	check("alice has arrived anew", alice, 0, 2*many)
	both()
	if err := s.Login(t.Context(), ofAlice, alice); err != nil {
		t.Fatal(err)
	}
	check("alice has another login", alice, many, 4*many)
	began := time.Now()
	if err := s.Forget(t.Context(), alice, nobodys); err != nil {
		t.Fatal(err)
	}
	if err := s.Login(t.Context(), ofAlice, alice); err != nil {
		t.Fatal(err)
	}
	var nobody uint32
	if time.Since(began) >= time.Second {
		nobody = s.holder(t) // too late to see it
	}
	both()
	check("the place was alice's just now", nobody, many, 6*many)
	s.Guard.Close()
	var err error
	if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Guard.Close() })
	both()
	check("a successor has given it", s.holder(t), 2*many, 8*many)
	if s.holder(t) == 0 {
		t.Error("the place stays nobody's")
	}
}

// TestRootOpensAreExact has a job, and the sessions of two whose opened files would be
// counted in one place, open files at the same time, from many threads. A kernel that
// gives BPF no trampoline has figures that say so.
func TestRootOpensAreExact(t *testing.T) {
	s := metered(t)
	ofRival := xos.Account{User: "rival", VO: "chemistry"}
	if err := s.Login(t.Context(), ofRival, rival); err != nil {
		t.Fatal(err)
	}
	a := s.begun(t, ofAlice)
	_, features := s.Level()
	have := slices.ContainsFunc(features, func(f nodeguard.Feature) bool { return f.Name == "accounting of opens" && f.Have })
	if !have {
		if os.Getenv("XOS_LSM") != "" {
			t.Errorf("this kernel has trampolines: %+v", features)
		}
		if u := s.used(t, ofAlice); u.Opens != 0 || !slices.Contains(u.Uncounted, "opens") {
			t.Errorf("figures of a kernel without trampolines: %+v", u)
		}
		return
	}
	// A program opens some by itself, to begin with.
	open := func(times int) (job, session, other uint64) {
		t.Helper()
		t.Run("at once", func(t *testing.T) {
			for name, do := range map[string]func(t *testing.T){
				"job":     func(t *testing.T) { a.run(t, alice, "opens", strconv.Itoa(times), "-") },
				"session": func(t *testing.T) { s.run(t, alice, "opens", strconv.Itoa(times), "-") },
				"other":   func(t *testing.T) { s.run(t, rival, "opens", strconv.Itoa(2*times), "-") },
			} {
				t.Run(name, func(t *testing.T) { t.Parallel(); do(t) })
			}
		})
		ofSession, err := s.LoginsUsed(t.Context(), alice)
		ofOther, err2 := s.LoginsUsed(t.Context(), rival)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return s.used(t, ofAlice).Opens, ofSession.Opens, ofOther.Opens
	}
	job0, session0, other0 := open(0)
	job, session, other := open(500)
	const many = 500 * workers
	for _, f := range []struct {
		what      string
		got, want uint64
	}{
		{"alice's job", job, 2*job0 + many},
		{"alice's session", session, 2*session0 + many},
		{"another's session", other, 2*other0 + 2*many},
	} {
		if f.got != f.want {
			t.Errorf("%s: %d files, want %d", f.what, f.got, f.want)
		}
	}
	w := httptest.NewRecorder()
	s.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if line := fmt.Sprintf("xos_vo_opened_files_total{vo=%q} %d\n", "physics", job); !strings.Contains(w.Body.String(), line) {
		t.Errorf("%q is not in\n%s", line, w.Body)
	}
}

// TestRootTrafficOfLogins has sessions where no jobs are, as on a machine, and a job
// beside them.
func TestRootTrafficOfLogins(t *testing.T) {
	s := newStage(t)
	s.Guard.Close()
	if err := os.RemoveAll(s.cfg.PinDir); err != nil {
		t.Fatal(err)
	}
	s.cfg.Subtree = filepath.Join(s.cfg.Subtree, "jobs")
	t.Cleanup(func() {
		for _, sub := range []string{"vo-physics/job-j1", "vo-physics", "supervisors", ""} {
			os.Remove(filepath.Join(s.cfg.CgroupRoot, s.cfg.Subtree, sub))
		}
	})
	var err error
	if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Guard.Close() })
	s.people(t)
	a := s.begun(t, ofAlice)
	ofSession, ofJob := s.listen(t, alice, "udp4", "127.0.0.1:0"), a.listen(t, alice, "udp4", "127.0.0.1:0")
	s.run(t, alice, "sends", ofSession, "-")
	a.run(t, alice, "sends", ofJob, "-")
	a.run(t, alice, "sends", ofJob, "-")
	const many = workers * rounds * (payload + ipAndUDP)
	if out, in := sent(t, s.Guard, ofAlice, alice); out != many || in != many {
		t.Errorf("the session sent %d and received %d, want %d", out, in, many)
	}
	if u := s.used(t, ofAlice); u.NetOut != 2*many || u.NetIn != 2*many {
		t.Errorf("the job sent %d and received %d, want %d", u.NetOut, u.NetIn, 2*many)
	}
}

// TestRootWhatEndedJobsSend: what is sent from the socket of a job that is not known
// any more is its VO's, and nobody's session's.
func TestRootWhatEndedJobsSend(t *testing.T) {
	s := metered(t)
	port := s.listen(t, alice, "udp4", "127.0.0.1:0")
	a := s.begun(t, ofAlice)
	cmd := a.command(t, alice, "survives", port, "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	next := func() {
		t.Helper()
		if line, err := said.ReadString('\n'); err != nil || line != "sent\n" {
			t.Fatalf("the job says %q, %v", line, err)
		}
	}
	next()
	if err := os.WriteFile(filepath.Join(s.dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if u := s.used(t, ofAlice); u.NetOut != payload+ipAndUDP {
		t.Errorf("the job sent %d bytes", u.NetOut)
	}
	if err := s.RemoveJob(t.Context(), ofAlice, "j1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	next()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list {
		var want float64
		if u.VO == "physics" && u.User == "" {
			want = 2 * (payload + ipAndUDP)
		}
		if got := u.Counts["network_sent_bytes_total"]; got != want {
			t.Errorf("%s, user %q, job %q: sent %v, want %v", u.VO, u.User, u.Job, got, want)
		}
	}
}

// survive sends once, and once more from the same socket when it is told to.
func survive(to string) int {
	c, err := net.Dial("udp4", to)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for range 2 {
		if _, err := c.Write(make([]byte, payload)); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("sent")
		if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
			return 0
		}
	}
	return 0
}
