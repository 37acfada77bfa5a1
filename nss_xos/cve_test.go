package nssxos_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// saying answers every request alike.
func saying(fields ...any) func(*net.UnixConn) {
	return func(c *net.UnixConn) {
		op, _, err := wiretest.ReadRequest(c)
		if err == nil {
			c.Write(wiretest.Message(op, 0, wiretest.Fields(fields...)))
		}
	}
}

// TestRootCVE_2025_5689: whatever the session service says, and whatever a
// snapshot has, no record with root's id or one out of range reaches a program.
func TestRootCVE_2025_5689(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	first, last := int(session.FirstID), int(session.LastID)
	for _, id := range []int{0, 1, 27, 1000, 65534, 65535, 100000, first - 1, last + 1, 1<<32 - 2, 1<<32 - 1} {
		for _, c := range []struct {
			key    string
			answer []any
		}{
			{"passwd zoe@physics", []any{"zoe@physics", id, wiretest.ZoeUID, "", "/", "/bin/sh"}},
			{"passwd zoe@physics", []any{"zoe@physics", wiretest.ZoeUID, id, "", "/", "/bin/sh"}},
			{"passwd " + strconv.Itoa(wiretest.ZoeUID), []any{"zoe@physics", id, id, "", "/", "/bin/sh"}},
			{"group zoe@physics", []any{"zoe@physics", id, []string{}}},
			{"group " + strconv.Itoa(wiretest.ZoeUID), []any{"zoe@physics", id, []string{}}},
		} {
			stop := wiretest.Listen(t, r.Socket(), saying(c.answer...))
			if got := output(t, r.Command(append([]string{"getent"}, strings.Fields(c.key)...)...)); got != absent {
				t.Errorf("%s with id %d: %s", c.key, id, got)
			}
			stop()
		}
		stop := wiretest.Listen(t, r.Socket(), saying([]int{wiretest.PhysicsGID, id}))
		if got := strings.Fields(output(t, r.Command("getent", "initgroups", "zoe@physics"))); len(got) != 1 {
			t.Errorf("groups with %d: %v", id, got)
		}
		stop()
		s := wiretest.Physics()
		s.Users[0].UID = uint32(id)
		if err := wire.WriteSnapshot(t.TempDir(), s); err == nil {
			t.Errorf("a snapshot with uid %d was written", id)
		}
	}
	// The least and the greatest are in range.
	for _, id := range []int{first, last} {
		stop := wiretest.Listen(t, r.Socket(), saying("zoe@physics", id, id, "", "/", "/bin/sh"))
		if got := output(t, r.Command("getent", "passwd", "zoe@physics")); !strings.Contains(got, ":"+strconv.Itoa(id)+":") {
			t.Errorf("id %d: %s", id, got)
		}
		stop()
	}
}

// TestRootHimmelblauLines: himmelblau wrote names with line ends and colons into
// /etc/subuid, and so lines of others. What would make two lines, or other fields,
// of a user's line is neither believed nor stored.
func TestRootHimmelblauLines(t *testing.T) {
	r := room(t)
	r.Snapshot(t)
	for _, evil := range []string{"x\nroot2::0:0::/:/bin/sh", "x:y", "\n", ":", "x\x00y", "x\ny:100000:65536"} {
		for field, answer := range map[string][]any{
			"name":  {"zoe" + evil + "@physics", wiretest.ZoeUID, wiretest.ZoeUID, "", "/", "/bin/sh"},
			"gecos": {"zoe@physics", wiretest.ZoeUID, wiretest.ZoeUID, evil, "/", "/bin/sh"},
			"home":  {"zoe@physics", wiretest.ZoeUID, wiretest.ZoeUID, "", "/" + evil, "/bin/sh"},
			"shell": {"zoe@physics", wiretest.ZoeUID, wiretest.ZoeUID, "", "/", "/bin/sh" + evil},
		} {
			stop := wiretest.Listen(t, r.Socket(), saying(answer...))
			for _, key := range []string{"zoe@physics", strconv.Itoa(wiretest.ZoeUID)} {
				if got := output(t, r.Command("getent", "passwd", key)); got != absent {
					t.Errorf("%q as %s of %s: %q", evil, field, key, got)
				}
			}
			stop()
		}
		for field, change := range map[string]func(*wire.SnapshotUser){
			"name":  func(u *wire.SnapshotUser) { u.Name = "a" + evil + "@physics" },
			"gecos": func(u *wire.SnapshotUser) { u.Gecos = evil },
			"home":  func(u *wire.SnapshotUser) { u.Dir = "/" + evil },
			"shell": func(u *wire.SnapshotUser) { u.Shell = "/bin/sh" + evil },
		} {
			s := wiretest.Physics()
			change(&s.Users[0])
			if err := wire.WriteSnapshot(r.Snapshots(), s); err != nil {
				continue // not even written
			}
			for _, key := range []string{"alice@physics", strconv.Itoa(wiretest.AliceUID)} {
				if got := output(t, r.Command("getent", "passwd", key)); got != absent {
					t.Errorf("a snapshot with %s %q: %s is %q", field, evil, key, got)
				}
			}
		}
	}
}
