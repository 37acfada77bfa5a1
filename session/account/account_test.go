package account_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/process"
)

var alice = xos.Account{User: "alice", VO: "physics"}

// host is a machine's directories.
type host struct {
	testing.TB
	account.Config
	now time.Time
}

func newHost(t testing.TB) *host {
	h := &host{TB: t, now: time.Now()}
	dir := t.TempDir()
	h.Dir, h.Etc = filepath.Join(dir, "state"), filepath.Join(dir, "etc")
	h.SiteKey = filepath.Join(dir, "key")
	for _, d := range []string{h.Dir, h.Etc} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.write(h.SiteKey, "0123456789abcdef0123456789abcdef")
	h.etc("passwd", "root:x:0:0::/root:/bin/sh\n")
	h.etc("group", "root:x:0:\nsudo:x:27:alice\n")
	return h
}

func (h *host) write(path, text string) {
	h.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
}

func (h *host) etc(name, text string) { h.write(filepath.Join(h.Etc, name), text) }

func (h *host) open() *account.Map {
	h.Helper()
	m, err := account.Open(h.Config, func() time.Time { return h.now })
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { m.Close() })
	return m
}

// young is a process that has just started.
func young(t testing.TB) process.ID {
	now, err := process.Now()
	if err != nil {
		t.Fatal(err)
	}
	return process.ID{PID: os.Getpid(), Start: now + 2} // in two ticks, before any answer
}

func (h *host) login(m *account.Map, a xos.Account) (uint32, error) {
	h.Helper()
	p := young(h)
	told, err := m.Preview(a)
	if err != nil {
		return 0, err
	}
	got, err := m.Commit(context.Background(), a, p)
	if err == nil && got != told {
		h.Errorf("%s was told %d and given %d", a, told, got)
	}
	return got, err
}

func TestUidsAreKept(t *testing.T) {
	h := newHost(t)
	m := h.open()
	uid, err := h.login(m, alice)
	if err != nil || uid < session.FirstID || uid > session.LastID {
		t.Fatalf("%d, %v", uid, err)
	}
	groups, err := m.Groups(context.Background(), []string{"physics", "physics:higgs"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := account.Open(h.Config, time.Now); !xos.Is(err, xos.Exists) {
		t.Errorf("opened twice: %v", err)
	}
	m.Close()
	m = h.open()
	if e, ok := m.User(alice); !ok || e.ID != uid || e.State != account.Active {
		t.Errorf("after a restart: %+v", e)
	}
	if a, ok := m.UserOf(uid); !ok || a != alice {
		t.Errorf("uid %d is %v", uid, a)
	}
	again, err := m.Groups(context.Background(), []string{"physics:higgs", "physics"})
	if err != nil || again[0].ID != groups[1].ID || again[1].ID != groups[0].ID {
		t.Errorf("groups %v, then %v, %v", groups, again, err)
	}
	if name, ok := m.GroupOf(groups[1].ID); !ok || name != "physics:higgs" {
		t.Errorf("gid %d is %q", groups[1].ID, name)
	}
	if _, ok := m.UserOf(groups[0].ID); ok {
		t.Error("a gid is a uid too")
	}
}

// TestMachinesOfASiteAgree: machines that share a key give accounts and groups
// the same ids, in whatever order they come, with and without a pool of
// subordinate ids, as long as all have the same; but for those whose id is taken
// on one of them.
func TestMachinesOfASiteAgree(t *testing.T) {
	for _, pool := range []account.Pool{{}, {First: 2013265920, Last: 2147418111}} {
		const people = 150
		ids := func(h *host, order func(i int) int) map[string]uint32 {
			h.SubIDs = pool
			m := h.open()
			out := map[string]uint32{}
			for i := range people {
				a := member(order(i))
				uid, err := m.Admit(context.Background(), a)
				if err != nil {
					t.Fatal(err)
				}
				g, err := m.Groups(context.Background(), []string{"physics:" + string(a.User)})
				if err != nil {
					t.Fatal(err)
				}
				out[a.String()], out["physics:"+string(a.User)] = uid, g[0].ID
			}
			return out
		}
		x := ids(newHost(t), func(i int) int { return i })
		back := newHost(t)
		back.etc("passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\nlocal:x:%d:100::/:/bin/sh\n", x["u7@physics"]))
		y := ids(back, func(i int) int { return people - 1 - i })
		differ := 0
		for name, id := range x {
			if y[name] != id {
				differ++
			}
		}
		if differ != 1 || y["u7@physics"] == x["u7@physics"] {
			t.Errorf("%d of %d differ, and u7 has %d and %d", differ, len(x), x["u7@physics"], y["u7@physics"])
		}
		other := newHost(t)
		other.write(other.SiteKey, "another key of 32 bytes or so...")
		same := 0
		for name, id := range ids(other, func(i int) int { return i }) {
			if x[name] == id {
				same++
			}
		}
		if same > 2 {
			t.Errorf("with another key, %d of %d are the same", same, len(x))
		}
	}
}

func TestOnlyWhatWasTold(t *testing.T) {
	h := newHost(t)
	m := h.open()
	ctx := context.Background()
	if _, err := m.Commit(ctx, alice, young(t)); !xos.Is(err, xos.Unavailable) {
		t.Errorf("nothing was reserved: %v", err)
	}
	if _, err := m.Preview(alice); err != nil {
		t.Fatal(err)
	}
	old := process.ID{PID: os.Getpid(), Start: 1} // it may have asked a predecessor
	if _, err := m.Commit(ctx, alice, old); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a login from before the service: %v", err)
	}
	if _, ok := m.User(alice); ok {
		t.Error("a refused login made the uid durable")
	}
	if _, err := m.Commit(ctx, alice, young(t)); err != nil {
		t.Errorf("a login from after: %v", err)
	}
	if _, err := m.Commit(ctx, alice, old); !xos.Is(err, xos.Unavailable) {
		t.Errorf("a login from before the uid was settled: %v", err)
	}
}

func TestReservationsEndAndAreBounded(t *testing.T) {
	h := newHost(t)
	h.Reservations = 8
	m := h.open()
	p := young(t)
	first, err := m.Preview(alice)
	if err != nil {
		t.Fatal(err)
	}
	m.Prove(alice)
	for i := range 100 { // a flood of another VO's names and of one's own
		if _, err := m.Preview(xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: xos.VOName(fmt.Sprint("vo", i%3))}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := m.Commit(context.Background(), alice, p); err != nil || got != first {
		t.Errorf("a proven reservation in a flood: %d, want %d, %v", got, first, err)
	}
	bob := xos.Account{User: "bob", VO: "physics"}
	if _, err := m.Preview(bob); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(10 * time.Minute)
	if !m.Known(bob) {
		t.Error("gone before ten minutes")
	}
	h.now = h.now.Add(10 * time.Minute)
	if _, err := m.Preview(xos.Account{User: "carol", VO: "physics"}); err != nil {
		t.Fatal(err)
	}
	if m.Known(bob) {
		t.Error("it lasts for ever")
	}
}

func TestLocalUsersComeFirst(t *testing.T) {
	h := newHost(t)
	m := h.open()
	plain, err := m.Preview(alice)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	ctx := context.Background()
	for name, change := range map[string]func(h *host){
		"uid":         func(h *host) { h.etc("passwd", fmt.Sprintf("root:x:0:0:::\nx:x:%d:100:::\n", plain)) },
		"primary gid": func(h *host) { h.etc("passwd", fmt.Sprintf("root:x:0:0:::\nx:x:2000:%d:::\n", plain)) },
		"gid":         func(h *host) { h.etc("group", fmt.Sprintf("x:x:%d:\n", plain)) },
		"subuid":      func(h *host) { h.etc("subuid", fmt.Sprintf("x:%d:65536\n", plain-100)) },
		"subgid":      func(h *host) { h.etc("subgid", fmt.Sprintf("x:%d:1\n", plain)) },
	} {
		h := newHost(t)
		change(h)
		if got, err := h.login(h.open(), alice); err != nil || got == plain {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	// It was free when it was told, and is not any more.
	h = newHost(t)
	m = h.open()
	p := young(t)
	if _, err := m.Preview(alice); err != nil {
		t.Fatal(err)
	}
	h.etc("passwd", fmt.Sprintf("root:x:0:0:::\nx:x:%d:100:::\n", plain))
	if _, err := m.Commit(ctx, alice, p); !xos.Is(err, xos.Conflict) {
		t.Errorf("useradd was quicker: %v", err)
	}
	// Names of the machine's own are never the grid's.
	h.etc("group", "root:x:0:\nphysics:x:500:\n")
	if _, err := m.Groups(ctx, []string{"physics"}); !xos.Is(err, xos.Permission) {
		t.Errorf("a local group's name: %v", err)
	}
	for _, name := range []string{"sudo", "root", "docker", "physics:", ":x", "a:b:c", "a b", "x\nroot", "physics:héliport", strings.Repeat("x", 200)} {
		if _, err := m.Groups(ctx, []string{name}); !xos.Is(err, xos.Invalid) {
			t.Errorf("group %q: %v", name, err)
		}
	}
	for _, a := range []xos.Account{{User: "root", VO: "physics"}, {User: "a:b", VO: "x"}, {User: "a\n", VO: "x"}, {User: "", VO: "x"}, {User: "é", VO: "x"}} {
		if _, err := m.Preview(a); !xos.Is(err, xos.Invalid) {
			t.Errorf("account %q: %v", a, err)
		}
		if _, err := m.Admit(ctx, a); !xos.Is(err, xos.Invalid) {
			t.Errorf("account %q admitted: %v", a, err)
		}
	}
}

func TestUseraddIsWaitedFor(t *testing.T) {
	h := newHost(t)
	m := h.open()
	f, err := os.OpenFile(filepath.Join(h.Etc, ".pwd.lock"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Admit(ctx, alice); !xos.Is(err, xos.Unavailable) {
		t.Errorf("under the lock of another: %v", err)
	}
	f.Close()
	if _, err := m.Admit(context.Background(), alice); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestCollisionsProbe(t *testing.T) {
	h := newHost(t)
	h.First, h.Last = session.FirstID, session.FirstID+15
	m := h.open()
	seen := map[uint32]string{}
	for i := range 16 {
		a := xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: "physics"}
		uid, err := h.login(m, a)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[uid]; ok {
			t.Fatalf("%s and %s have uid %d", a, other, uid)
		}
		seen[uid] = a.String()
	}
	if _, err := h.login(m, alice); !xos.Is(err, xos.TooLarge) {
		t.Errorf("a seventeenth of sixteen: %v", err)
	}
	m.Close()
	if users, _ := h.open().VO("physics"); len(users) != 16 {
		t.Errorf("%d users after a restart", len(users))
	}
}

// TestAnyOrder compares random work, restarts included, with the promise: a
// uid never changes and never has two holders.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(8) {
		h := newHost(t)
		h.First, h.Last, h.Reservations = session.FirstID, session.FirstID+63, 6
		m := h.open()
		rnd := rand.New(rand.NewPCG(seed, 1))
		durable, holder := map[string]uint32{}, map[uint32]string{}
		learn := func(name string, id uint32) {
			if was, ok := durable[name]; ok && was != id {
				t.Fatalf("seed %d: %s had %d, has %d", seed, name, was, id)
			}
			if other, ok := holder[id]; ok && other != name {
				t.Fatalf("seed %d: %d is %s's and %s's", seed, id, other, name)
			}
			durable[name], holder[id] = id, name
		}
		for range 80 {
			a := xos.Account{User: xos.UserID(fmt.Sprint("u", rnd.IntN(20))), VO: xos.VOName(fmt.Sprint("vo", rnd.IntN(2)))}
			switch rnd.IntN(6) {
			case 0:
				m.Preview(a)
			case 1, 2:
				if uid, err := h.login(m, a); err == nil {
					learn(a.String(), uid)
				}
			case 3:
				if e, err := m.Groups(context.Background(), []string{string(a.VO) + ":" + string(a.User)}); err == nil {
					learn("group "+e[0].Name, e[0].ID)
				}
			case 4:
				h.now = h.now.Add(time.Duration(rnd.IntN(20)) * time.Minute)
			case 5:
				m.Close()
				m = h.open()
			}
		}
		for name, id := range durable {
			if strings.HasPrefix(name, "group ") {
				continue
			}
			if a, ok := m.UserOf(id); !ok || a.String() != name {
				t.Fatalf("seed %d: %d is %v, want %s", seed, id, a, name)
			}
		}
	}
}
