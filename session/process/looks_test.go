package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/test/need"
)

// TestLooksAreNeverOlder: whoever asks gets a look that was begun after that.
func TestLooksAreNeverOlder(t *testing.T) {
	var clock, looks atomic.Uint32
	l := Looks{take: func() (Census, error) {
		looks.Add(1)
		begun := clock.Add(1)
		time.Sleep(50 * time.Microsecond)
		return Census{entries: []entry{{uid: begun}}}, nil
	}}
	const askers, times = 100, 50
	var work sync.WaitGroup
	for range askers {
		work.Go(func() {
			for range times {
				asked := clock.Add(1)
				c, err := l.Take(t.Context())
				if err != nil || c.entries[0].uid < asked {
					t.Errorf("asked at %d, begun at %d, %v", asked, c.entries[0].uid, err)
				}
			}
		})
	}
	work.Wait()
	t.Logf("%d looks for %d questions", looks.Load(), askers*times)
}

// TestLooksAreShared: a thousand who ask while somebody looks wait for one more
// look, together; a failure is that of all who waited for it, and of nobody else;
// who does not wait any longer holds nobody up.
func TestLooksAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		l := Looks{take: func() (Census, error) {
			n++
			time.Sleep(time.Second)
			if n == 2 {
				return Census{}, errors.New("it cannot be looked at")
			}
			return Census{}, nil
		}}
		var failed atomic.Int32
		var work sync.WaitGroup
		ask := func() {
			work.Go(func() {
				if _, err := l.Take(t.Context()); err != nil {
					failed.Add(1)
				}
			})
		}
		ask()
		time.Sleep(time.Millisecond)
		for range 1000 {
			ask()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if yes, err := l.Running(ctx, session.IDs{UID: 5000}); yes || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait: %v, %v", yes, err)
		}
		work.Wait()
		if n != 2 || failed.Load() != 1000 {
			t.Errorf("%d looks, %d failed", n, failed.Load())
		}
		if _, err := l.Take(t.Context()); err != nil || n != 3 {
			t.Errorf("afterwards: %v, %d looks", err, n)
		}
	})
}

// TestRootLooksSeeWhoIsThere: while many ask, each sees what was there before he
// asked, and not what had ended.
func TestRootLooksSeeWhoIsThere(t *testing.T) {
	need.Root(t)
	var l Looks
	var work sync.WaitGroup
	for i := range uint32(30) {
		work.Go(func() {
			ids := session.IDs{UID: 2147300000 + i, First: 2147310000 + i*10, Last: 2147310000 + i*10 + 9}
			for round := range uint32(5) {
				uid := ids.UID
				if round%2 == 1 {
					uid = ids.First + round
				}
				cmd := exec.Command("sleep", "60")
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				if yes, err := l.Running(t.Context(), ids); err != nil || !yes {
					t.Errorf("uid %d runs: %v, %v", uid, yes, err)
				}
				if err := l.Kill(t.Context(), ids); err != nil {
					t.Error(err)
				}
				if yes, err := l.Running(t.Context(), ids); err != nil || yes {
					t.Errorf("uid %d was killed: %v, %v", uid, yes, err)
				}
				cmd.Wait()
			}
		})
	}
	work.Wait()
}

// TestRootBlindLooks: where processes cannot be looked at, it is not that there
// are none.
func TestRootBlindLooks(t *testing.T) {
	need.Root(t)
	for _, how := range []string{"empty", "others", "descriptors"} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "XOS_TEST_BLIND="+how)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v, %s", how, err, out)
		}
	}
}

// Blind lets TestMain, which is outside, call blind.
var Blind = blind

// blind takes a census where that must fail.
func blind(how string) (err error) {
	switch how {
	case "empty":
		err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/proc", "tmpfs", 0, ""))
	case "others": // its processes are those of a pid namespace that this one is not in
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		inner := exec.Command("mount", "-t", "proc", "proc", "/proc")
		inner.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		err = errors.Join(err, inner.Run())
	case "descriptors":
		var dir *os.File
		if dir, err = os.Open("/proc"); err == nil {
			limit := unix.Rlimit{Cur: uint64(dir.Fd() + 1), Max: uint64(dir.Fd() + 1)} // for the directory, but no file in it
			dir.Close()
			err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		}
	}
	if err != nil {
		return err
	}
	if c, err := Take(); err == nil {
		return errors.New("it saw " + strconv.Itoa(len(c.entries)))
	}
	return nil
}

// BenchmarkLeave has a thousand people, who run nothing any more, leave at once:
// alone with a look each, and together.
func BenchmarkLeave(b *testing.B) {
	const people = 1000
	for _, processes := range []int{0, 500} {
		var crowd []*exec.Cmd
		for range processes {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			crowd = append(crowd, cmd)
		}
		for name, running := range map[string]func(*Looks, session.IDs) (bool, error){
			"alone": func(_ *Looks, ids session.IDs) (bool, error) {
				c, err := Take()
				return len(c.Of(ids)) > 0, err
			},
			"together": func(l *Looks, ids session.IDs) (bool, error) { return l.Running(b.Context(), ids) },
		} {
			b.Run(name+"/"+strconv.Itoa(processes)+"-more", func(b *testing.B) {
				for b.Loop() {
					var l Looks
					var work sync.WaitGroup
					for i := range uint32(people) {
						work.Go(func() {
							if yes, err := running(&l, session.IDs{UID: 2147300000 + i, First: 2013265920, Last: 2013331455}); err != nil || yes {
								b.Error(yes, err)
							}
						})
					}
					work.Wait()
				}
				var c Census
				c, _ = Take()
				b.ReportMetric(float64(len(c.entries)), "processes")
			})
		}
		for _, cmd := range crowd {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
}
