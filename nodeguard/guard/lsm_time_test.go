package guard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

// besiegeUntil tries the same few things over and over until its input ends,
// and tells how often, and what ever worked.
func besiegeUntil(text string) int {
	var p prey
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	over := make(chan struct{})
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(over)
	}()
	tries, worked := 0, map[string]int{}
	for {
		select {
		case <-over:
			json.NewEncoder(os.Stdout).Encode(siege{tries, worked})
			return 0
		default:
		}
		for _, name := range []string{"open", "getsid", "abstract: stream"} {
			tries++
			if prowl[name](p) == nil {
				worked[name]++
			}
		}
	}
}

type siege struct {
	Tries  int
	Worked map[string]int
}

// TestRootLSMHasNoGap: while guards come and go, of the same version, of another,
// and of one whose maps cannot be taken over, and while policies that share other
// things are replaced, nothing that is denied works for a
// moment: not for carol, and not for root in a cgroup of her VO, whom only the
// cgroup labels. XOS_RELOADS has it do so for more times than a few.
func TestRootLSMHasNoGap(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	data, err := json.Marshal(s.prey(t))
	if err != nil {
		t.Fatal(err)
	}
	var sieges []func() siege
	for _, cmd := range []*exec.Cmd{s.command(t, carol, "besiege", string(data), "-"), s.job(t, "chemistry", 0, "besiege", string(data), "-")} {
		// The guards that come are to have the other processor, or most of the only one.
		cmd.Path, cmd.Args = "/usr/bin/taskset", append([]string{"taskset", "-c", "0", "nice", "-n", "5", s.bin}, cmd.Args[1:]...)
		in, _ := cmd.StdinPipe()
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sieges = append(sieges, func() (got siege) {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
				t.Fatal(err)
			}
			return got
		})
	}
	reloads := 3
	if n, err := strconv.Atoi(os.Getenv("XOS_RELOADS")); err == nil {
		reloads = n
	}
	s.Guard.Close()
	for i := range reloads {
		if i%3 == 2 { // its maps are of another layout
			if err := os.Remove(filepath.Join(s.cfg.PinDir, "vo_of_cgroup")); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 1 { // the predecessor was of another version
			pins, _ := filepath.Glob(filepath.Join(s.cfg.PinDir, "link_lsm_*"))
			for _, pin := range pins {
				_, hook, _ := strings.Cut(strings.TrimPrefix(filepath.Base(pin), "link_lsm_"), "_")
				if err := os.Rename(pin, filepath.Join(s.cfg.PinDir, "link_lsm_00000000_"+hook)); err != nil {
					t.Fatal(err)
				}
			}
		}
		g, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if level, features := g.Level(); level != nodeguard.LevelA {
			t.Errorf("guard %d is at level %s: %+v", i, level, features)
		}
		// Chemistry wants to share, with whoever does; physics does with biology, and
		// only now and then.
		with := []xos.VOName{"biology", "law"}[:1+i%2]
		policies := []isolation.VO{sharing("physics", isolation.Aims, with...), sharing("chemistry", isolation.Aims, "*"), sharing("biology", isolation.Aims, "*")}
		for range 3 {
			if err := g.Isolate(isolation.Site{Share: isolation.Aims}, policies); err != nil {
				t.Error(err)
			}
			if err := g.Isolate(isolation.Site{}, nil); err != nil {
				t.Error(err)
			}
		}
		g.Close()
		if old, _ := filepath.Glob(filepath.Join(s.cfg.PinDir, "link_lsm_00000000_*")); len(old) != 0 {
			t.Errorf("programs of another version stay: %q", old)
		}
	}
	for i, end := range sieges {
		got := end()
		if got.Tries < 100 || len(got.Worked) != 0 {
			t.Errorf("besieger %d: of %d tries these worked: %v", i, got.Tries, got.Worked)
		}
		t.Logf("besieger %d: %d tries while %d guards came", i, got.Tries, reloads)
	}
}

// diary is a log of decisions in memory.
type diary struct {
	mu      sync.Mutex
	records []audit.Record
}

func (d *diary) Append(_ context.Context, r audit.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = append(d.records, r)
	return nil
}

// told sums up the diary: refusals of carol's by name or number, and those lost.
func (d *diary) told(t *testing.T) (refusals, lost uint64) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		n := func(key string) uint64 {
			v, err := strconv.ParseUint(r.Detail[key], 10, 64)
			if err != nil && r.Detail[key] != "" {
				t.Error(err)
			}
			return v
		}
		switch {
		case r.Action == "isolation":
			refusals, lost = refusals+n("unnamed"), lost+n("lost")
		case r.Detail["repeated"] != "":
			refusals += n("repeated")
		default:
			refusals++
		}
	}
	return refusals, lost
}

// TestRootLSMTellsEachRefusal floods the log: decisions stay right, and every
// refusal is told, counted or known to be lost.
func TestRootLSMTellsEachRefusal(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	counted := func() (refused, lost uint64) {
		names, counts, err := s.Counts()
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			switch {
			case strings.HasPrefix(name, "refused by the kernel's checks"):
				refused += counts[i]
			case strings.Contains(name, "too many"):
				lost = counts[i]
			}
		}
		return refused, lost
	}
	before, _ := counted()
	// Nobody reads: it must fill, and what does not fit must be counted.
	const flood = 6000
	cmd := s.command(t, carol, "flood", strconv.Itoa(p.PID), strconv.Itoa(flood))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// It is charged to who was refused: in a job's cgroup to the job, elsewhere to
	// the user.
	for range 2 {
		cmd := s.job(t, "chemistry", carol, "flood", strconv.Itoa(p.PID), "500")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if u := s.used(t, ofCarol); u.Refused != 2*500 {
		t.Errorf("carol's job was refused %d times, want %d", u.Refused, 2*500)
	}
	if list, err := s.Usage(); err != nil {
		t.Error(err)
	} else if i := slices.IndexFunc(list, func(u guard.Usage) bool { return u.User == "carol" }); i < 0 || list[i].Counts["refusals_total"] != flood {
		t.Errorf("carol's session was refused other than %d times: %+v", flood, list)
	}
	const refusals = flood + 2*500
	after, lost := counted()
	if after-before != refusals || lost == 0 {
		t.Fatalf("%d refusals are counted of %d, %d lost", after-before, refusals, lost)
	}
	d := s.recorded(t, s.Guard)
	if told, _ := d.told(t); told != refusals-lost {
		t.Errorf("of %d refusals %d were lost and %d are told", refusals, lost, told)
	}
	first := d.all()[0]
	if first.Actor != "carol@chemistry" || first.Action != "isolation.scheduling" || first.VO != "chemistry" || first.Allowed ||
		!strings.Contains(first.Subject, "of alice@physics") || first.Detail["rule"] != "task_getsid" {
		t.Errorf("the first is told as %+v", first)
	}
}

// floodOf asks for a process's session so many times.
func floodOf(pid, times string) int {
	of, _ := strconv.Atoi(pid)
	n, _ := strconv.Atoi(times)
	for range n {
		if _, err := unix.Getsid(of); err != unix.EPERM {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}
