package guard_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/test/need"
)

var (
	ofAlice = xos.Account{User: "alice", VO: "physics"}
	ofCarol = xos.Account{User: "carol", VO: "chemistry"}
)

// metered is a stage whose machine counts, with the network programs where the
// jobs are.
func metered(t *testing.T) stage {
	s := newStageOf(t, "")
	_, features := s.Level()
	i := slices.IndexFunc(features, func(f nodeguard.Feature) bool { return f.Name == "accounting" })
	if i < 0 || !features[i].Have {
		need.Missing(t, "accounting", features[max(i, 0)].Why)
	}
	s.people(t)
	return s
}

// begun begins one, j1, and gives the stage in its cgroup.
func (s stage) begun(t *testing.T, who xos.Account) stage {
	t.Helper()
	path, err := s.Guard.JobCgroup(t.Context(), who, "j1")
	if err != nil {
		t.Fatal(err)
	}
	s.dir = filepath.Join(s.cfg.CgroupRoot, path)
	return s
}

func (s stage) run(t *testing.T, uid uint32, args ...string) {
	t.Helper()
	if out, err := s.command(t, uid, args...).Output(); err != nil {
		t.Fatalf("%s: %v\n%s", args, err, out)
	}
}

func (s stage) used(t *testing.T, who xos.Account) nodeguard.Used {
	t.Helper()
	u, err := s.Used(t.Context(), who, "j1")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestRootFiguresAreExact has jobs of two VOs and a session do known amounts of
// work at the same time, from many threads.
func TestRootFiguresAreExact(t *testing.T) {
	s := metered(t)
	a, c := s.begun(t, ofAlice), s.begun(t, ofCarol)
	port := a.listen(t, alice, "udp4", "127.0.0.1:0")   // one program of alice's job
	closed := s.listen(t, alice, "tcp4", "127.0.0.1:0") // in her session
	t.Run("at once", func(t *testing.T) {
		for name, do := range map[string]func(t *testing.T){
			"alice executes": func(t *testing.T) { a.run(t, alice, "execs", "-", "-") },
			"carol executes": func(t *testing.T) { c.run(t, carol, "execs", "-", "-") },
			"bob executes":   func(t *testing.T) { s.run(t, bob, "execs", "-", "-") }, // in a session
			"alice sends":    func(t *testing.T) { a.run(t, alice, "sends", port, "-") },
			"carol knocks":   func(t *testing.T) { c.run(t, carol, "knocks", closed, "-") },
			"a local user":   func(t *testing.T) { s.run(t, local, "execs", "-", "-") },
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); do(t) })
		}
	})
	const many = workers * rounds
	ua, uc := s.used(t, ofAlice), s.used(t, ofCarol)
	for _, f := range []struct {
		what      string
		got, want uint64
	}{
		{"alice's programs", ua.Execs, many + 3},
		{"carol's programs", uc.Execs, many + 2},
		{"what alice sent", ua.NetOut, many * (payload + ipAndUDP)},
		{"what alice received", ua.NetIn, many * (payload + ipAndUDP)},
		{"what carol sent", uc.NetOut, 0},
		{"what alice was refused", ua.Refused, 0},
		{"what carol was refused", uc.Refused, many},
	} {
		if f.got != f.want {
			t.Errorf("%s: %d, want %d", f.what, f.got, f.want)
		}
	}
	if ua.CPUUser <= 0 || ua.CPUSystem <= 0 {
		t.Errorf("processor time: %v, %v", ua.CPUUser, ua.CPUSystem)
	}
	w := httptest.NewRecorder()
	s.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		fmt.Sprintf("xos_vo_executions_total{vo=%q} %d\n", "physics", many+3),
		fmt.Sprintf("xos_job_network_sent_bytes_total{vo=%q,job=%q} %d\n", "physics", "j1", many*(payload+ipAndUDP)),
		fmt.Sprintf("xos_vo_refusals_total{vo=%q} %d\n", "chemistry", many),
		fmt.Sprintf("xos_account_executions_total{vo=%q,user=%q} %d\n", "physics", "bob", many+1),
		fmt.Sprintf("xos_account_executions_total{vo=%q,user=%q} 1\n", "physics", "alice"),
		"# HELP xos_job_network_received_bytes_total Bytes of IP packets received, headers included.\n# TYPE xos_job_network_received_bytes_total counter\n",
	} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("%q is not in\n%s", line, w.Body)
		}
	}
}

// TestRootFiguresOutliveTheReader kills the process that reads and restarts the
// guard while jobs work, and takes away a job's cgroup before it is asked for.
func TestRootFiguresOutliveTheReader(t *testing.T) {
	s := metered(t)
	a := s.begun(t, ofAlice)
	port := s.listen(t, alice, "udp4", "127.0.0.1:0")
	config, err := json.Marshal(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	work := make(chan error, 2)
	for _, args := range [][]string{{"execs", "-", "-"}, {"sends", port, "-"}} {
		cmd := a.command(t, alice, args...)
		go func() {
			out, err := cmd.Output()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			work <- err
		}()
	}
	killed := 0
	for left := 2; left > 0 || killed < 3; killed++ {
		reader := s.command(t, 0, "reads", string(config), "-")
		out, err := reader.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 100)
		if n, err := out.Read(line); err != nil || string(line[:n]) != "reading\n" {
			t.Fatalf("the reader says %q, %v", line[:n], err)
		}
		reader.Process.Kill()
		reader.Wait()
		for more := true; more; {
			select {
			case err := <-work:
				if left--; err != nil {
					t.Fatal(err)
				}
			default:
				more = false
			}
		}
	}
	t.Logf("%d readers were killed", killed)
	if err := os.Remove(a.dir); err != nil { // as a job's supervisor does
		t.Fatal(err)
	}
	s.Guard.Close()
	if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Guard.Close() })
	for range 2 { // asked twice, it says the same
		u, err := s.EndJob(t.Context(), ofAlice, "j1")
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(workers*rounds + 2); u.Execs != want {
			t.Errorf("%d programs, want %d", u.Execs, want)
		}
		if want := uint64(workers * rounds * (payload + ipAndUDP)); u.NetOut != want {
			t.Errorf("%d bytes sent, want %d", u.NetOut, want)
		}
		if !slices.Contains(u.Uncounted, "cpu") {
			t.Errorf("processor time of a cgroup that is gone: %+v", u)
		}
	}
	if err := s.Guard.RemoveJob(t.Context(), ofAlice, "j1"); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Used(t.Context(), ofAlice, "j1"); !xos.Is(err, xos.NotFound) {
		t.Errorf("after the job was removed: %+v, %v", u, err)
	}
	b := s.begun(t, ofAlice)
	b.run(t, alice, "nothing", "-", "-")
	if u := s.used(t, ofAlice); u.Execs != 1 || u.NetOut != 0 {
		t.Errorf("another job of the name begins with %+v", u)
	}
}

// TestRootDisksAreCounted reads what threads wrote while they live, and when
// they have ended.
func TestRootDisksAreCounted(t *testing.T) {
	s := metered(t)
	a := s.begun(t, ofAlice)
	scratch, err := os.MkdirTemp("/var/tmp", "xos-test-") // where there is a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	if err := os.Chown(scratch, int(alice), int(alice)); err != nil {
		t.Fatal(err)
	}
	cmd := a.command(t, alice, "writes", scratch, "-")
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
	line := make([]byte, 100)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "written\n" {
		t.Fatalf("the job says %q, %v", line[:n], err)
	}
	during := s.used(t, ofAlice)
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	after := s.used(t, ofAlice)
	_, features := s.Level()
	controller := slices.ContainsFunc(features, func(f nodeguard.Feature) bool { return f.Name == "controller io" && f.Have })
	for when, u := range map[string]nodeguard.Used{"during": during, "after": after} {
		// A controller counts what the file system writes for itself, too.
		if u.Written < disk || !controller && u.Written > disk+1<<20 {
			t.Errorf("%s: %d bytes written, want %d", when, u.Written, disk)
		}
	}
	if during.Written > after.Written {
		t.Errorf("%d bytes were written, and then %d", during.Written, after.Written)
	}
}

// TestRootUIDOfAnother gives a uid to another account: what the first did is
// not the second's.
func TestRootUIDOfAnother(t *testing.T) {
	s := metered(t)
	s.run(t, bob, "nothing", "-", "-")
	if err := s.Login(t.Context(), xos.Account{User: "dora", VO: "chemistry"}, bob); err != nil {
		t.Fatal(err)
	}
	s.run(t, bob, "nothing", "-", "-")
	s.run(t, bob, "nothing", "-", "-")
	list, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list {
		switch {
		case u.User == "bob":
			t.Errorf("%+v has no uid any more", u)
		case u.User == "dora" && u.Counts["executions_total"] != 2:
			t.Errorf("dora's: %+v", u)
		}
	}
}
