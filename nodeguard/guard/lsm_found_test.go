package guard_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// stalk tries one thing of each kind on the prey whenever it is told to, from one
// thread all the time, with the real uid that it is told.
func stalk(text string) int {
	runtime.LockOSThread()
	var p prey
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Println(err)
		return 1
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		uid, err := strconv.Atoi(in.Text())
		if err == nil {
			// This thread's alone: the library's would set all.
			err = sys(unix.SYS_SETRESUID, uid, 0, 0)
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		said := "own"
		_, err = os.ReadFile(ownFile(p, uid))
		if err := errors.Join(err, unix.Kill(os.Getpid(), 0)); err != nil {
			said = err.Error()
		}
		for _, name := range []string{"stat", "open", "getsid", "abstract: stream"} {
			if err := prowl[name](p); err == nil {
				said += ", " + name
			}
		}
		fmt.Println(said)
	}
	return 0
}

// ownFile is a file of a uid's beside the prey's.
func ownFile(p prey, uid int) string {
	return filepath.Join(filepath.Dir(p.File), "of-"+strconv.Itoa(uid))
}

// TestRootLSMKnowsWhatAThreadIsNow: what the programs found a thread to be they find
// anew when its uid or its cgroup is another, or its label was changed or taken away.
func TestRootLSMKnowsWhatAThreadIsNow(t *testing.T) {
	s, have := needLSM(t)
	if !have {
		return
	}
	s.people(t)
	p := s.prey(t)
	for _, uid := range []int{0, int(bob), int(carol), int(mal)} {
		if err := errors.Join(os.WriteFile(ownFile(p, uid), nil, 0o600), os.Chown(ownFile(p, uid), uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.job(t, "", 0, "stalk", string(text), "-")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	said := bufio.NewScanner(out)
	const all, none = "own, stat, open, getsid, abstract: stream", "own"
	expect := func(when string, uid uint32, want string) {
		t.Helper()
		fmt.Fprintln(in, uid)
		if !said.Scan() {
			t.Fatalf("%s: nothing said (%v)", when, said.Err())
		}
		if got := said.Text(); got != want {
			t.Errorf("%s: %s; want %s", when, got, want)
		}
	}
	move := func(dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	// The stage's own cgroup has no label; a job's is its VO's.
	jobOf := func(vo xos.VOName) string {
		t.Helper()
		path, err := s.JobCgroup(t.Context(), xos.Account{User: "any", VO: vo}, "j1")
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(s.cfg.CgroupRoot, path)
	}
	label := func(uid uint32, vo xos.VOName) {
		t.Helper()
		if err := s.Login(t.Context(), xos.Account{User: "bob", VO: vo}, uid); err != nil {
			t.Fatal(err)
		}
	}
	expect("the machine's", 0, all)
	expect("bob", bob, all)
	expect("carol", carol, none)
	expect("bob again", bob, all)
	expect("without a VO", mal, none)
	expect("root again", 0, all)

	expect("bob with his label", bob, all)
	if err := s.Forget(t.Context(), bob, nobodys); err != nil {
		t.Fatal(err)
	}
	expect("bob without a label", bob, none)
	label(bob, "chemistry")
	expect("bob of the other VO", bob, none)
	label(bob, "physics")
	expect("bob as before", bob, all)

	// A guard that dies while it takes a label away leaves the count odd.
	maps := map[string]*ebpf.Map{}
	for _, name := range []string{"label_changes", "vo_of_uid"} {
		if maps[name], err = ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, name), nil); err != nil {
			t.Fatal(err)
		}
		defer maps[name].Close()
	}
	count := func() (n uint32) {
		t.Helper()
		if err := maps["label_changes"].Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	if before%2 != 0 {
		t.Errorf("nothing is under way, and the count is %d", before)
	}
	var vo uint32
	if err := errors.Join(maps["vo_of_uid"].Lookup(uint32(bob), &vo), maps["label_changes"].Put(uint32(0), before+1)); err != nil {
		t.Fatal(err)
	}
	expect("bob while something changes", bob, all)
	if err := maps["vo_of_uid"].Delete(uint32(bob)); err != nil {
		t.Fatal(err)
	}
	expect("bob, whose label is taken away", bob, none)
	if err := maps["vo_of_uid"].Put(uint32(bob), vo); err != nil {
		t.Fatal(err)
	}
	expect("bob, who has it again", bob, all)
	label(bob, "physics")
	if n := count(); n != before+1 {
		t.Errorf("nothing was changed, and the count is %d, not %d", n, before+1)
	}
	label(bob, "chemistry")
	expect("bob of the other VO after that", bob, none)
	label(bob, "physics")
	if n := count(); n%2 != 0 || n <= before {
		t.Errorf("after a change that was not ended and some that were, the count is %d, and was %d", n, before)
	}
	expect("bob as before again", bob, all)

	move(jobOf("chemistry"))
	expect("bob in the other VO's job", bob, none)
	expect("root in the other VO's job", 0, none)
	move(jobOf("physics"))
	expect("bob in his VO's job", bob, all)
	expect("root in that job", 0, all)
	move(s.dir)
	expect("carol outside of all jobs", carol, none)
	expect("bob outside of all jobs", bob, all)
}
