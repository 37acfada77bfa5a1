package guard_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
)

const recycled = session.FirstID + 1_000_000

func nobodys() bool { return true }

// entries counts what a pinned map has.
func (s stage) entries(t *testing.T, name string) (n int) {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for key, err := m.NextKeyBytes(nil); key != nil || err != nil; key, err = m.NextKeyBytes(key) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestRootMoreUIDsThanRoom labels more uids in one boot than the kernel's maps
// have room for, one after the other: each is forgotten when it is free, and
// nothing is kept of it.
func TestRootMoreUIDsThanRoom(t *testing.T) {
	s := metered(t)
	maps := []string{"vo_of_uid", "used", "owner_of_used"}
	before := map[string]int{}
	for _, name := range maps {
		before[name] = s.entries(t, name)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc >> 10
	}
	const many = 70_000
	begin, small := time.Now(), heap()
	for i := range uint32(many) {
		a := xos.Account{User: xos.UserID(fmt.Sprintf("u%d", i)), VO: "physics"}
		if err := s.Login(t.Context(), a, recycled+i); err != nil {
			t.Fatalf("after %d others: %v", i, err)
		}
		if err := s.Forget(t.Context(), recycled+i, nobodys); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d uids in %v; KiB of heap: %d, then %d", many, time.Since(begin).Round(time.Millisecond), small, heap())
	if now := heap(); now > small+512 {
		t.Errorf("%d KiB of heap, %d before", now, small)
	}
	for _, name := range maps {
		if n := s.entries(t, name); n != before[name] {
			t.Errorf("%s has %d entries, and had %d", name, n, before[name])
		}
	}
	list, err := s.Usage()
	if err != nil || slices.ContainsFunc(list, func(u guard.Usage) bool { return strings.HasPrefix(u.User, "u") }) {
		t.Errorf("figures of those who are gone: %v, %v", list, err)
	}
}

// TestRootForgetsWhatIsFree: what is somebody's keeps its label and its figures,
// also where it is given while it is about to be forgotten; what is forgotten
// gets nothing, and its figures are told before.
func TestRootForgetsWhatIsFree(t *testing.T) {
	s := metered(t)
	at := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	s.run(t, bob, "nothing", "-", "-")
	if err := s.Forget(t.Context(), bob, func() bool { return false }); !xos.Is(err, xos.Conflict) {
		t.Errorf("forgetting bob, who is here: %v", err)
	}
	if out, err := s.command(t, bob, "connect", "tcp4", at).Output(); err != nil {
		t.Errorf("bob: %s", out)
	}
	if u, err := s.LoginsUsed(t.Context(), bob); err != nil || u.Execs != 2 || u.NetOut == 0 {
		t.Errorf("bob's figures: %+v, %v", u, err)
	}
	if err := s.Forget(t.Context(), bob, nobodys); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget(t.Context(), bob, nobodys); err != nil {
		t.Errorf("again: %v", err)
	}
	if out, err := s.command(t, bob, "connect", "tcp4", at).Output(); err == nil {
		t.Errorf("forgotten, and let through: %s", out)
	}
	if u, err := s.LoginsUsed(t.Context(), bob); !xos.Is(err, xos.NotFound) {
		t.Errorf("his figures: %+v, %v", u, err)
	}
	if uids, err := s.Labelled(t.Context()); err != nil || slices.Contains(uids, bob) || !slices.Contains(uids, uint32(alice)) {
		t.Errorf("labelled: %v, %v", uids, err)
	}
	for _, bad := range []uint32{0, local, session.FirstID - 1} {
		if err := s.Forget(t.Context(), bad, nobodys); !xos.Is(err, xos.Invalid) {
			t.Errorf("forgetting %d: %v", bad, err)
		}
	}

	labels, err := ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, "vo_of_uid"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer labels.Close()
	var taken atomic.Bool
	var work sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := s.Forget(t.Context(), recycled, func() bool { return !taken.Load() }); err != nil && !xos.Is(err, xos.Conflict) {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 300 {
		taken.Store(true)
		if err := s.Login(t.Context(), xos.Account{User: "dora", VO: "physics"}, recycled); err != nil {
			t.Fatal(err)
		}
		var vo uint32
		if err := labels.Lookup(uint32(recycled), &vo); err != nil {
			t.Fatalf("dora is here, and has no label: %v", err)
		}
		if _, err := s.LoginsUsed(t.Context(), recycled); err != nil {
			t.Fatalf("dora is here, and has no figures: %v", err)
		}
		taken.Store(false)
		time.Sleep(50 * time.Microsecond) // so that it may be seen to be free, and then not
	}
	close(stop)
	work.Wait()
}

// TestRootForgetIsKilled kills what labels and forgets, at any of its steps: the
// next one finds all that is left to be forgotten.
func TestRootForgetIsKilled(t *testing.T) {
	s := metered(t)
	s.Guard.Close()
	config, err := json.Marshal(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		cmd := s.command(t, 0, "recycles", string(config), "-")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 1)); n != 1 {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(1000+round*731) * time.Microsecond) // anywhere
		cmd.Process.Kill()
		cmd.Wait()
		if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		s.mend(t, 4)
		s.Guard.Close()
	}
	// And each step for itself.
	for _, gone := range [][]string{{}, {"used"}, {"used", "owner_of_used"}, {"used", "owner_of_used", "vo_of_uid"}, {"vo_of_uid"}} {
		if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if err := s.Login(t.Context(), xos.Account{User: "dora", VO: "physics"}, recycled); err != nil {
			t.Fatal(err)
		}
		s.Guard.Close()
		for _, name := range gone {
			m, err := ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, name), nil)
			if err != nil {
				t.Fatal(err)
			}
			key := make([]byte, 4)
			if name != "vo_of_uid" {
				key = make([]byte, 16)
				key[8] = 3 // XOS_OF_USER
			}
			key[0], key[1], key[2], key[3] = byte(recycled&0xff), byte(recycled>>8&0xff), byte(recycled>>16&0xff), byte(recycled>>24&0xff)
			if err := m.Delete(key); err != nil {
				t.Fatal(err)
			}
			m.Close()
		}
		if s.Guard, err = guard.New(s.cfg, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if uids, err := s.Labelled(t.Context()); err != nil || slices.Contains(uids, recycled) != (len(gone) < 3) {
			t.Errorf("without %q: labelled are %v, %v", gone, uids, err)
		}
		s.mend(t, 1)
		s.Guard.Close()
	}
}

// mend forgets all that is labelled and to be recycled, n at most, and sees that
// nothing of it is left.
func (s stage) mend(t *testing.T, n int) {
	t.Helper()
	uids, err := s.Labelled(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	uids = slices.DeleteFunc(uids, func(uid uint32) bool { return uid < recycled })
	if len(uids) > n {
		t.Errorf("%d are labelled", len(uids))
	}
	for _, uid := range uids {
		if err := s.Forget(t.Context(), uid, nobodys); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"vo_of_uid", "used", "owner_of_used"} {
		if got := s.entries(t, name); got != 4 { // those of the stage
			t.Errorf("%s has %d entries, want 4", name, got)
		}
	}
}

// recycle labels and forgets uids until it is killed.
func recycle(config string) int {
	var cfg guard.Config
	err := json.Unmarshal([]byte(config), &cfg)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	g, err := guard.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("x")
	for i := uint32(0); ; i++ {
		uid := recycled + i%1000
		if err := g.Login(nil, xos.Account{User: xos.UserID(fmt.Sprintf("u%d", i)), VO: "physics"}, uid); err != nil {
			return 1
		}
		if err := g.Forget(nil, uid, nobodys); err != nil {
			return 1
		}
	}
}

// TestRootRest: what bounds the sessions of one who rests is taken away, and
// nothing else.
func TestRootRest(t *testing.T) {
	s := newStage(t)
	dir := fmt.Sprintf("/run/systemd/system.control/user-%d.slice.d", uint32(recycled+uint32(os.Getpid())))
	uid := uint32(recycled + uint32(os.Getpid()))
	top := "/run/systemd/system.control"
	if _, err := os.Stat(top); err != nil {
		t.Cleanup(func() { os.Remove(top) })
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"50-MemoryMax.conf", "50-CPUQuota.conf", "mine.conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (names []string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if err := s.Rest(t.Context(), uid, func() bool { return false }); err != nil || len(left()) != 3 {
		t.Errorf("of one who is back: %v, %v", left(), err)
	}
	if err := s.Rest(t.Context(), uid, nobodys); err == nil || !slices.Equal(left(), []string{"mine.conf"}) {
		t.Errorf("with a file of somebody else's: %v, %v", left(), err)
	}
	os.Remove(filepath.Join(dir, "mine.conf"))
	for range 2 {
		if err := s.Rest(t.Context(), uid, nobodys); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("it is there still: %v", err)
		}
	}
}
