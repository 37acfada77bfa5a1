package wire_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// crowd is a VO's accounts, the truth that its snapshot must tell.
type crowd struct {
	mu     sync.Mutex
	users  map[string]wire.SnapshotUser
	groups []wire.SnapshotGroup
}

func newCrowd(people int) *crowd {
	c := &crowd{users: map[string]wire.SnapshotUser{}, groups: []wire.SnapshotGroup{
		{Name: "physics", GID: wiretest.PhysicsGID}, {Name: "physics:higgs", GID: wiretest.HiggsGID}}}
	for i := range people {
		c.put(i, uint32(wiretest.AliceUID+i), wiretest.PhysicsGID)
	}
	return c
}

func login(i int) string { return fmt.Sprintf("u%d@physics", i) }

func (c *crowd) put(i int, uid uint32, groups ...uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := login(i)
	c.users[name] = wire.SnapshotUser{Groups: groups,
		Passwd: wire.Passwd{Name: name, UID: uid, GID: uid, Gecos: name, Dir: "/home/xos/physics/u", Shell: "/bin/bash"}}
}

func (c *crowd) remove(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.users, login(i))
}

func (c *crowd) all() (wire.Whole, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := wire.Snapshot{VO: "physics", GID: wiretest.PhysicsGID, Groups: c.groups}
	for _, u := range c.users {
		s.Users = append(s.Users, u)
	}
	slices.SortFunc(s.Users, func(a, b wire.SnapshotUser) int { return int(a.UID) - int(b.UID) })
	return s.Whole(), nil
}

func (c *crowd) one(name string) func() (*wire.SnapshotUser, error) {
	return func() (*wire.SnapshotUser, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if u, ok := c.users[name]; ok {
			return &u, nil
		}
		return nil, nil
	}
}

// compare asks the snapshot in dir about these people, and about all ids.
func (c *crowd) compare(t *testing.T, dir string, people int, ids []uint32) {
	t.Helper()
	r, err := wire.OpenSnapshot(dir, "physics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	owner, members := map[uint32]string{}, map[uint32][]string{}
	for i := range people {
		want, isThere := c.users[login(i)]
		got, ok, err := user(r.Named(login(i)))
		if err != nil || ok != isThere || cmp.Diff(want, got) != "" {
			t.Fatalf("%s: %v, %v %s", login(i), ok, err, cmp.Diff(want, got))
		}
		if isThere {
			owner[want.UID] = want.Name
			for _, gid := range want.Groups {
				members[gid] = append(members[gid], want.Name)
			}
		}
	}
	for _, id := range ids {
		got, ok, err := user(r.Numbered(id))
		if err != nil || ok != (owner[id] != "") || got.Name != owner[id] {
			t.Fatalf("%d: %q, want %q, %v", id, got.Name, owner[id], err)
		}
	}
	for _, g := range c.groups {
		x, err := r.Named(g.Name)
		if err != nil || x.Group == nil {
			t.Fatalf("%s: %v", g.Name, err)
		}
		got := *x.Group
		slices.Sort(got.Members)
		slices.Sort(members[g.GID])
		if cmp.Diff(members[g.GID], got.Members) != "" {
			t.Fatalf("%s: %s", g.Name, cmp.Diff(members[g.GID], got.Members))
		}
	}
}

// user is the user that was found, if one was.
func user(r wire.Record, err error) (wire.SnapshotUser, bool, error) {
	if xos.Is(err, xos.NotFound) || err == nil && r.User == nil {
		return wire.SnapshotUser{}, false, nil
	} else if err != nil {
		return wire.SnapshotUser{}, false, err
	}
	return *r.User, true, nil
}

// folder gives a directory and a publisher in it.
func folder(t testing.TB) (string, *wire.Publisher) {
	t.Helper()
	need.Root(t)                                    // who gives files to groups
	dir, err := os.MkdirTemp("/dev/shm", "publish") // in memory, as /run is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir, wire.NewPublisher(dir, time.Now)
}

// TestRootChanges: whatever comes and goes, with or without a base, the
// snapshot says what is so: by name, by id, and in the lists of members. Ids go
// from one to another.
func TestRootChanges(t *testing.T) {
	for _, people := range []int{0, 20, 700} {
		t.Run(fmt.Sprint(people), func(t *testing.T) {
			dir, p := folder(t)
			c := newCrowd(people)
			all := people + 20
			var ids []uint32
			for i := range all {
				ids = append(ids, uint32(wiretest.AliceUID+i))
			}
			if err := p.Publish("physics", c.all); err != nil {
				t.Fatal(err)
			}
			c.compare(t, dir, all, ids)
			rnd := rand.New(rand.NewPCG(1, uint64(people)))
			for step := range 400 {
				i := rnd.IntN(min(all, 40)) + max(0, all-40)
				used := map[uint32]bool{}
				for _, u := range c.users {
					used[u.UID] = true
				}
				free := slices.DeleteFunc(slices.Clone(ids), func(id uint32) bool { return used[id] })
				before, isThere := c.users[login(i)]
				groups := []uint32{wiretest.PhysicsGID, wiretest.HiggsGID}[:1+rnd.IntN(2)]
				switch {
				case isThere && rnd.IntN(3) == 0:
					c.put(i, before.UID, groups...)
				case isThere && rnd.IntN(3) == 0 && len(free) > 0:
					c.put(i, free[rnd.IntN(len(free))], groups...)
				case isThere:
					c.remove(i)
				default:
					c.put(i, free[rnd.IntN(len(free))], groups...)
				}
				if _, err := p.Change("physics", login(i), c.one(login(i))); err != nil {
					t.Fatal(step, err)
				}
				if step%20 == 0 {
					c.compare(t, dir, all, ids)
				}
				if step%90 == 89 {
					if err := p.Publish("physics", c.all); err != nil {
						t.Fatal(err)
					}
				}
			}
			c.compare(t, dir, all, ids)
		})
	}
}

// TestRootDue: changes ask for a new base before the head is large, and are
// neither held up nor lost while that is written.
func TestRootDue(t *testing.T) {
	dir, p := folder(t)
	c := newCrowd(600)
	if err := p.Publish("physics", c.all); err != nil {
		t.Fatal(err)
	}
	asked, n := 0, 600
	grow := func() {
		c.put(n, uint32(wiretest.AliceUID+n), wiretest.PhysicsGID)
		due, err := p.Change("physics", login(n), c.one(login(n)))
		if err != nil {
			t.Fatal(err)
		}
		if due {
			asked++
		}
		n++
	}
	for range 1000 {
		grow()
	}
	if asked != 1 {
		t.Errorf("asked for a base %d times", asked)
	}
	large := size(t, wire.SnapshotPath(dir, "physics"))
	err := p.Publish("physics", func() (wire.Whole, error) {
		s, err := c.all()
		for range 10 {
			grow() // which this base does not have
		}
		c.remove(3)
		if _, err := p.Change("physics", login(3), c.one(login(3))); err != nil {
			t.Fatal(err)
		}
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.compare(t, dir, n, nil)
	if now := size(t, wire.SnapshotPath(dir, "physics")); now > large/4 {
		t.Errorf("a head of %d bytes was %d before", now, large)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 2 {
		t.Errorf("there are %v", files)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// TestRootRefusedChanges: what contradicts the snapshot is refused, and does
// not get in.
func TestRootRefusedChanges(t *testing.T) {
	for _, people := range []int{5, 600} {
		dir, p := folder(t)
		c := newCrowd(people)
		if err := p.Publish("physics", c.all); err != nil {
			t.Fatal(err)
		}
		user := func(name string, uid uint32, groups ...uint32) *wire.SnapshotUser {
			return &wire.SnapshotUser{Passwd: wire.Passwd{Name: name, UID: uid, GID: uid, Dir: "/", Shell: "/bin/sh"}, Groups: groups}
		}
		for _, c := range []struct {
			what string
			vo   xos.VOName
			user *wire.SnapshotUser
			want xos.Kind
		}{
			{"another's uid", "physics", user("x@physics", wiretest.AliceUID), xos.Conflict},
			{"a group's gid", "physics", user("x@physics", wiretest.PhysicsGID), xos.Conflict},
			{"another VO's user", "physics", user("x@biology", wiretest.AliceUID+9000), xos.Invalid},
			{"root", "physics", user("x@physics", 0), xos.Internal},
			{"an unknown group", "physics", user("x@physics", wiretest.AliceUID+9000, wiretest.HiggsGID+50), xos.NotFound},
			{"a VO that is not there", "biology", user("x@biology", wiretest.AliceUID+9000), xos.NotFound},
		} {
			_, err := p.Change(c.vo, c.user.Name, func() (*wire.SnapshotUser, error) { return c.user, nil })
			if xos.KindOf(err) != c.want {
				t.Errorf("%s: %v", c.what, err)
			}
		}
		c.put(people, uint32(wiretest.AliceUID+people), wiretest.PhysicsGID)
		if _, err := p.Change("physics", login(people), c.one(login(people))); err != nil {
			t.Error(err)
		}
		c.compare(t, dir, people+1, nil)
	}
}

// TestRootRetain: who is not retained is gone with all files, and so is what a
// publisher that died has left; what the others have stays.
func TestRootRetain(t *testing.T) {
	dir, p := folder(t)
	c := newCrowd(600)
	if err := p.Publish("physics", c.all); err != nil {
		t.Fatal(err)
	}
	// A successor publishes anew: the former base is of no use then.
	p = wire.NewPublisher(dir, time.Now)
	if err := p.Publish("physics", c.all); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, ".new-physics-123"), []byte("half"), 0o600)
	if err := p.Retain(map[xos.VOName]bool{"physics": true}); err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 2 || !strings.HasSuffix(files[0].Name(), ".base") && !strings.HasSuffix(files[1].Name(), ".base") {
		t.Errorf("there are %v", files)
	}
	c.compare(t, dir, 600, nil)
	err := p.Publish("physics", func() (wire.Whole, error) {
		s, err := c.all()
		if err := p.Retain(nil); err != nil {
			t.Error(err)
		}
		return s, err
	})
	if err != nil {
		t.Error(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("there are %v", files)
	}
}
