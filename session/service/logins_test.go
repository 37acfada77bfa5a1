package service_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

var (
	people = flag.Int("people", 60, "how many log in in TestRootLogins")
	atOnce = flag.Int("at-once", 20, "how many of them at the same time")
)

// TestRootLogins: people who were never here log in and out through the real
// modules, in libpam, one after the other and many at once; all get in, and those
// who left are cleared away as fast as others come. With -people and -at-once
// test/bench takes its figure of this: the line "figure" has logins a second, the
// milliseconds of processor time that each took in this process (service and
// core) and in the others (sshd's part), and the medians and the 99th percentiles
// of how long they took until the session was open, in milliseconds.
func TestRootLogins(t *testing.T) {
	l := newLayer(t, func(s *stage) {
		// As on a machine: what is of one boot only is in memory.
		if err := syscall.Mount("tmpfs", s.run, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.kill(); syscall.Unmount(s.run, syscall.MNT_DETACH) })
		s.linger, s.tend, s.retire = 2*time.Second, 10*time.Second, time.Hour
		// The account map's own journal is as on a machine: on the disk.
	})
	l.room.Build(t, "../../pam_xos/build.sh", "pam_xos.so")
	l.room.Build(t, "../../principals_xos/build.sh", "xos-principals")
	l.room.Compile(t, "testdata/logins.c", "logins", "-lpam", "-Wno-unused-result")
	// As pam-auth-update puts it.
	l.room.PAM(t, "sshd", "auth [success=done ignore=ignore default=die] /run/lib/pam_xos.so\nauth required pam_permit.so\n"+
		"account required pam_permit.so\naccount required /run/lib/pam_xos.so\n"+
		"session required pam_permit.so\nsession required /run/lib/pam_xos.so\n")
	var list bytes.Buffer
	for i := range *people {
		a := xos.Account{User: xos.UserID(fmt.Sprintf("u%d", i)), VO: "physics"}
		c, _ := l.ca.SSHUser(a.String(), credtest.Groups("higgs"), credtest.Home(xos.VolumeID("home-physics-"+string(a.User))))
		fmt.Fprintln(&list, a, c.Type(), key(c))
	}
	most := make(chan int)
	done := make(chan struct{})
	go func() { // how many are here at the same time, with those who left a moment ago
		n := 0
		for {
			select {
			case <-done:
				most <- n
				return
			case <-time.After(50 * time.Millisecond):
				n = max(n, l.mounts.homes())
			}
		}
	}()
	cmd := l.room.Command("/run/lib/logins", strconv.Itoa(*atOnce))
	cmd.Stdin = &list
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	before := used()
	begin := time.Now()
	out, err := cmd.Output()
	took := time.Since(begin)
	ours := used() - before
	close(done)
	here := <-most
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	times := strings.Fields(string(out))
	if len(times) != *people+2 || times[*people] != "all" {
		t.Fatalf("%d of %d were let in", len(times)-2, *people)
	}
	all, _ := strconv.ParseFloat(times[*people+1], 64)
	var ms []float64
	for _, v := range times[:*people] {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, f/1e3)
	}
	slices.Sort(ms)
	theirs := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	perLogin := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 / float64(*people) }
	rate := float64(*people) / all * 1e6
	begin = time.Now()
	l.patiently("all sessions end", func() bool { return l.sessions() == 0 })
	l.patiently("all homes are put away", func() bool { return l.mounts.homes() == 0 })
	away := time.Since(begin)
	// Linger, a look around that is a tenth of it apart, and some time for the rest.
	if most := int(rate*(1.5*l.linger.Seconds()+1)) + *atOnce; here > most {
		t.Errorf("%d homes were there at the same time, at %.0f logins a second: who leaves is not cleared away in time", here, rate)
	}
	if away > 2*l.linger+5*time.Second {
		t.Errorf("the last homes were put away %v after the last login", away)
	}
	l.patiently("no credential is left", func() bool {
		left, err := filepath.Glob(filepath.Join(l.run, "cred", "*"))
		return err == nil && len(left) == 0
	})
	log, err := l.audit.Query(auditOf("login"))
	if err != nil || len(log) != min(*people, 1000) {
		t.Errorf("%d logins are on record, of %d, %v", len(log), *people, err)
	}
	t.Logf("%d people, %d at once, in %v; %d homes at the same time, the last put away after %v", *people, *atOnce, took.Round(time.Millisecond), here, away.Round(time.Millisecond))
	t.Logf("figure %.1f %.2f %.2f %.1f %.1f", rate, perLogin(ours), perLogin(theirs), ms[len(ms)/2], ms[len(ms)*99/100])
}

// used is this process's processor time so far.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(os.NewSyscallError("getrusage", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
