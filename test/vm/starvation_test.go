package vm_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xtreemos/xos/test/testbed"
	"github.com/xtreemos/xos/test/vm"
	"github.com/xtreemos/xos/test/vm/wire"
)

// ssh is the command line of a person who logs in to this machine.
func ssh(account, command string) string {
	return "ssh -o BatchMode=yes " + account + "@node1 '" + command + "'"
}

// ofJobs and ofLogins are carol's VO's cgroup and that of her sessions.
const ofJobs = "/sys/fs/cgroup/xos/vo-chemistry"

func ofLogins(s *stage) string {
	return "/sys/fs/cgroup/user.slice/user-" + s.as("carol", ssh("carol@chemistry", "id -u")) + ".slice"
}

// ceilingsAreSet: the kernel has what node.toml says, for jobs and for logins.
func ceilingsAreSet(s *stage) {
	s.as("carol", ssh("carol@chemistry", "xsub --node node1 -- true"))
	const show = "grep -H . cpu.max cpu.weight memory.max memory.high pids.max io.max"
	for where, got := range map[string]string{
		"jobs": s.root("cd " + ofJobs + " && " + show),
		// A session sees its own, and is the only time at which it is there.
		"logins": s.as("carol", ssh("carol@chemistry", "cd /sys/fs/cgroup/user.slice/user-$(id -u).slice && "+show)),
	} {
		for file, want := range map[string]string{
			"cpu.max": "100000 100000", "cpu.weight": "100", "memory.max": "268435456", "memory.high": "241590272",
			"pids.max": "150", "io.max": "rbps=8388608 wbps=8388608",
		} {
			if !strings.Contains(got, file+":"+want) && !(file == "io.max" && strings.Contains(got, want)) {
				s.t.Errorf("%s: %s is not %q:\n%s", where, file, want, got)
			}
		}
	}
}

// appetite is one way to eat a machine, and how it shows that the hog has come
// to its ceiling: a file of its cgroup, and a key in it that has grown, or the
// number that it has reached. Without a file there is no ceiling.
type appetite struct {
	name      string
	jobs      bool // a job can have it, not only a session
	logins    bool
	file, key string
	full      int64
	// killed means that the kernel may, for want of memory.
	killed bool
}

var appetites = []appetite{
	{"cpu", true, true, "cpu.stat", "nr_throttled", 0, false},
	// Before Linux 6.11 a refused fork is counted where the process is, not where
	// the ceiling is.
	{"processes", true, true, "pids.current", "", 150, false},
	{"files", true, true, "memory.events", "high", 0, true},
	// Linux 6.1 has it wait at memory.high for minutes before it is killed.
	{"memory", true, true, "memory.events", "high", 0, true},
	{"reads", true, true, "io.stat", "rbytes", 0, false},
	// A job's disks are its home and memory.
	{"writes", false, true, "io.stat", "wbytes", 0, false},
	{"syncs", false, true, "io.stat", "wbytes", 0, false},
	{"home", true, false, "", "", 0, false},
}

// patience is how long alice may wait for a login and a job while a member of
// another VO eats the machine from a session and from a job, both at once, by the
// machine's clock: ten times what she waits when nobody does. Who is starved waits for
// ever.
func patience(idle time.Duration) time.Duration { return 10 * idle }

// nobodyStarves: whatever carol eats, alice of another VO logs in and runs a job
// in bounded time, and carol meets a ceiling. The kernels have the appetites by turns;
// one that is alone has all.
func nobodyStarves(s *stage) {
	s.program("hog")
	alice := ssh("alice@physics", "echo in; xsub --node node1 -- echo the job ran")
	s.as("alice", alice)
	began, _ := s.clock()
	s.as("alice", alice)
	now, _ := s.clock()
	idle := now - began
	s.t.Logf("a login and a job take alice %.1f s when nobody eats", idle.Seconds())
	logins := ofLogins(s)
	for i, a := range appetites {
		if all := os.Getenv("XOS_KERNEL") != ""; !all && vm.Kernels[i%len(vm.Kernels)] != s.Kernel {
			continue // the other kernel's
		}
		var hogs []hog
		if a.jobs {
			hogs = append(hogs, hog{ofJobs, ssh("carol@chemistry", "exec xsub --node node1 -- hog "+a.name)})
		}
		if a.logins {
			hogs = append(hogs, hog{logins, ssh("carol@chemistry", "exec hog "+a.name)})
		}
		s.eat(a, hogs, alice, patience(idle))
	}
}

// hog is a command that eats, and the cgroup whose ceiling it shall meet.
type hog struct{ cgroup, command string }

// eat has carol eat by each command until the ceiling of its cgroup is met, and
// alice log in meanwhile. One hog is full before the next begins: what carol's
// sessions eat is not there for her to start a job.
func (s *stage) eat(a appetite, hogs []hog, alice string, patience time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, 4*commandTime)
	defer cancel()
	var running sync.WaitGroup
	before, ends := map[string]int64{}, map[string]chan string{}
	for _, h := range hogs {
		was := s.count(h.cgroup, a)
		before[h.cgroup] = was
		ended := make(chan string, 1)
		ends[h.cgroup] = ended
		running.Go(func() {
			var said bytes.Buffer
			exit, err := s.Do(ctx, wire.Spec{Argv: testbed.As("carol", h.command)}, vm.Streams{Stdout: &said, Stderr: &said})
			ended <- fmt.Sprintf("status %d (%v)\n%s", exit.Code, err, said.String())
		})
		s.full(h, a, was, ended)
	}
	began, _ := s.clock()
	out, status, err := s.do(s.ctx, "", "alice", alice)
	now, _ := s.clock()
	took := now - began
	if err != nil || status != 0 || !strings.Contains(out, "the job ran") {
		s.t.Errorf("%s: alice's login or job failed: status %d (%v)\n%s", a.name, status, err, out)
	}
	if took > patience {
		s.t.Errorf("%s: alice waited %v, more than %v", a.name, took, patience)
	}
	for _, h := range hogs {
		s.t.Logf("%-9s: alice waited %4.1f s; %s %s of %s grew from %d to %d", a.name, took.Seconds(), a.file, a.key,
			filepath.Base(h.cgroup), before[h.cgroup], s.count(h.cgroup, a))
	}
	for _, h := range hogs {
		select {
		case said := <-ends[h.cgroup]:
			if !a.killed {
				s.t.Errorf("%s: %s ended before alice had her turn: %s", a.name, h.command, said)
			}
		default:
		}
	}
	cancel()
	s.root("pkill -9 -u carol@chemistry; for i in $(seq 600); do pgrep -u carol@chemistry hog >/dev/null || exit 0; sleep 0.1; done; exit 1")
	running.Wait()
	s.root("find /var/tmp -name 'hog-*' -prune -exec rm -r {} +")
	if a.name == "home" {
		s.as("carol", ssh("carol@chemistry", "rm -rf ~/hog-*"))
	}
}

// full waits until a hog has met its ceiling. It looks once a second of the host's: each
// look is a process of the machine's, of which the hog is to have the rest.
func (s *stage) full(h hog, a appetite, was int64, ended <-chan string) {
	for deadline := time.Now().Add(commandTime); ; {
		if n := s.count(h.cgroup, a); a.full == 0 && n > was || a.full > 0 && n >= a.full {
			return
		}
		if a.file == "" && s.root("pgrep -fx 'hog "+a.name+"' || true") != "" {
			return
		}
		why := ""
		select {
		case said := <-ended:
			if a.killed && s.count(h.cgroup, a) > was { // since it was looked at
				return
			}
			why = "it ended: " + said
		case <-time.After(time.Second):
			if time.Now().Before(deadline) {
				continue
			}
			why = "it runs: " + s.root("ps -eo user:16,pid,stat,comm | grep chem")
		}
		s.t.Errorf("%s: no ceiling is met: %s of %s was %d and is:\n%s\n%s: %s", a.name, a.file, h.cgroup, was,
			s.root("cat "+h.cgroup+"/"+a.file+" || true"), h.command, why)
		return
	}
}

// count reads a number of a cgroup's file, summed over its lines ("254:0
// rbytes=1 wbytes=2" or "max 3", or "4" without a key); 0 while there is no such
// cgroup.
func (s *stage) count(cgroup string, a appetite) int64 {
	if a.file == "" {
		return 0
	}
	text, err := s.ReadFile(s.ctx, cgroup+"/"+a.file)
	if failed(err) != nil {
		s.t.Fatal(err)
	}
	var sum int64
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		for i, field := range fields {
			value, found := strings.CutPrefix(field, a.key+"=")
			switch {
			case a.key == "":
				value, found = field, true
			case field == a.key && i == 0 && len(fields) > 1:
				value, found = fields[1], true
			}
			if n, err := strconv.ParseInt(value, 10, 64); found && err == nil {
				sum += n
			}
		}
	}
	return sum
}
