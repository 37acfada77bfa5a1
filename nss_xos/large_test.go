package nssxos_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	nssxos "github.com/xtreemos/xos/nss_xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// TestRootLarge: of a VO whose snapshot is a head and a base, a lookup finds
// what is so now: what changed, what is new and what did not change, and not
// what is gone. A head without its base is broken, not all there is.
func TestRootLarge(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	p := wire.NewPublisher(dir, time.Now)
	user := func(i, id int) *wire.SnapshotUser {
		name := fmt.Sprintf("u%d@physics", i)
		return &wire.SnapshotUser{Groups: []uint32{wiretest.PhysicsGID},
			Passwd: wire.Passwd{Name: name, UID: uint32(wiretest.AliceUID + id), GID: uint32(wiretest.AliceUID + id), Dir: fmt.Sprint("/", id), Shell: "/bin/sh"}}
	}
	err := p.Publish("physics", func() (wire.Whole, error) {
		s := wire.Snapshot{VO: "physics", GID: wiretest.PhysicsGID, Groups: []wire.SnapshotGroup{{Name: "physics", GID: wiretest.PhysicsGID}}}
		for i := range 600 {
			s.Users = append(s.Users, *user(i, i))
		}
		return s.Whole(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		i    int
		user *wire.SnapshotUser
	}{
		{3, nil}, {5, user(5, 5000)}, {6, nil}, {601, user(601, 6)}, {7, nil}, {7, user(7, 7)},
	} {
		if _, err := p.Change("physics", user(c.i, 0).Name, func() (*wire.SnapshotUser, error) { return c.user, nil }); err != nil {
			t.Fatal(err)
		}
	}
	at := nssxos.Place{Socket: filepath.Join(dir, "nobody"), Snapshots: dir}
	const size = 1 << 16
	for _, c := range []struct{ i, id int }{{4, 4}, {5, 5000}, {7, 7}, {601, 6}, {599, 599}} {
		want := user(c.i, c.id)
		pw, s, e := at.PasswdByName(want.Name, size)
		if s != nssxos.Success || pw.UID != want.UID || pw.Dir != want.Dir {
			t.Errorf("%s: %+v, %v, %v", want.Name, pw, s, e)
		}
		if pw, s, e := at.PasswdByID(want.UID, size); s != nssxos.Success || pw.Name != want.Name {
			t.Errorf("%d: %+v, %v, %v", want.UID, pw, s, e)
		}
		if gids, s, e := at.GroupsOf(want.Name, want.UID, 0); s != nssxos.Success || len(gids) != 2 {
			t.Errorf("%s: %v, %v, %v", want.Name, gids, s, e)
		}
	}
	for _, i := range []int{3, 6, 602} { // root asks the service, which is not there
		if pw, s, _ := at.PasswdByName(user(i, 0).Name, size); s != nssxos.Unavail {
			t.Errorf("found %+v, %v", pw, s)
		}
	}
	for _, id := range []int{3, 5, 602} {
		if pw, s, _ := at.PasswdByID(user(0, id).UID, size); s != nssxos.Unavail {
			t.Errorf("found %+v, %v", pw, s)
		}
	}
	if g, s, e := at.GroupByName("physics", size); s != nssxos.Success || len(g.Members) != 599 {
		t.Errorf("%d members, %v, %v", len(g.Members), s, e)
	}
	bases, err := filepath.Glob(filepath.Join(dir, "*.base"))
	if err != nil || len(bases) != 1 {
		t.Fatal(bases, err)
	}
	if err := os.Remove(bases[0]); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{4, 5} { // 5 is in the head
		if pw, s, _ := at.PasswdByName(user(i, 0).Name, size); s != nssxos.Unavail {
			t.Errorf("without its base: %+v, %v", pw, s)
		}
	}
}
