package userdb_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/userdb"
	"github.com/xtreemos/xos/session/wire"
)

const nothing = `{"error":"io.systemd.UserDatabase.NoRecordFound"}`

func aliceRecord() string {
	return fmt.Sprintf(`{"parameters":{"record":{"userName":"alice@physics","realName":"alice@physics","uid":%d,"gid":%d,`+
		`"homeDirectory":"/home/xos/physics/alice","shell":"/bin/bash","disposition":"regular","service":"io.xtreemos.UserDatabase"},"incomplete":false}}`, alice, alice)
}

func physicsRecord() string {
	return fmt.Sprintf(`{"parameters":{"record":{"groupName":"physics","gid":%d,"members":["alice@physics","bob@physics"],`+
		`"disposition":"regular","service":"io.xtreemos.UserDatabase"},"incomplete":false}}`, session.FirstID)
}

// TestRootAnswers holds the interface's answers to the letter.
func TestRootAnswers(t *testing.T) {
	s := newStage(t)
	own := fmt.Sprintf(`{"parameters":{"record":{"groupName":"alice@physics","gid":%d,"disposition":"regular","service":"io.xtreemos.UserDatabase"},"incomplete":false}}`, alice)
	member := func(user string, more bool) string {
		if more {
			return fmt.Sprintf(`{"parameters":{"userName":%q,"groupName":"physics"},"continues":true}`, user)
		}
		return fmt.Sprintf(`{"parameters":{"userName":%q,"groupName":"physics"}}`, user)
	}
	conflict := `{"error":"io.systemd.UserDatabase.ConflictingRecordFound"}`
	noList := `{"error":"io.systemd.UserDatabase.EnumerationNotSupported"}`
	bad := func(p string) string {
		return fmt.Sprintf(`{"parameters":{"parameter":%q},"error":"org.varlink.service.InvalidParameter"}`, p)
	}
	id := func(name string, id uint32) string { return fmt.Sprintf("%q:%d", name, id) }
	for _, c := range []struct{ method, parameters, want string }{
		{"GetUserRecord", `"userName":"alice@physics"`, aliceRecord()},
		{"GetUserRecord", `"userName":"alice@physics","uid":null`, aliceRecord()},
		{"GetUserRecord", id("uid", alice), aliceRecord()},
		{"GetUserRecord", `"userName":"alice@physics",` + id("uid", alice), aliceRecord()},
		{"GetUserRecord", `"userName":"alice@physics",` + id("uid", bob), conflict},
		{"GetUserRecord", `"userName":"alice@physics","uid":1`, conflict},
		{"GetUserRecord", `"userName":"nobody@physics",` + id("uid", alice), conflict},
		{"GetUserRecord", `"userName":"root","uid":0`, nothing},
		{"GetUserRecord", `"userName":"dora@physics"`, nothing},
		{"GetUserRecord", `"userName":"alice@biology"`, nothing},
		{"GetUserRecord", `"userName":"physics"`, nothing},
		{"GetUserRecord", `"userName":"../../etc@physics"`, nothing},
		{"GetUserRecord", `"userName":""`, nothing},
		{"GetUserRecord", id("uid", session.FirstID), nothing}, // a group's
		{"GetUserRecord", id("uid", session.LastID), nothing},
		{"GetUserRecord", `"uid":4294967295`, nothing},
		{"GetUserRecord", ``, noList},
		{"GetUserRecord", `"userName":null`, noList},
		{"GetUserRecord", `"USERNAME":"alice@physics"`, bad("USERNAME")},
		{"GetUserRecord", `"userName":5`, bad("userName")},
		{"GetUserRecord", `"uid":-1`, bad("uid")},
		{"GetUserRecord", `"uid":4294967296`, bad("uid")},
		{"GetUserRecord", `"userName":"alice@physics","uidMin":7`, bad("uidMin")},
		{"GetUserRecord", `"groupName":"physics"`, bad("groupName")},
		{"GetGroupRecord", `"groupName":"physics"`, physicsRecord()},
		{"GetGroupRecord", id("gid", session.FirstID), physicsRecord()},
		{"GetGroupRecord", `"groupName":"alice@physics"`, own},
		{"GetGroupRecord", id("gid", alice), own},
		{"GetGroupRecord", `"groupName":"physics:higgs"`, nothing},
		{"GetGroupRecord", id("gid", session.FirstID+1), nothing}, // physics:higgs
		{"GetGroupRecord", `"groupName":"docker"`, nothing},
		{"GetGroupRecord", `"groupName":"staff"`, nothing},
		{"GetGroupRecord", ``, noList},
		{"GetMemberships", `"userName":"alice@physics"`, member("alice@physics", false)},
		{"GetMemberships", `"groupName":"physics"`, member("alice@physics", true) + "\n" + member("bob@physics", false)},
		{"GetMemberships", `"userName":"bob@physics","groupName":"physics"`, member("bob@physics", false)},
		{"GetMemberships", `"userName":"bob@physics","groupName":"chemistry"`, nothing},
		{"GetMemberships", `"groupName":"physics:higgs"`, nothing},
		{"GetMemberships", `"groupName":"alice@physics"`, nothing},
		{"GetMemberships", `"userName":"root"`, nothing},
		{"GetMemberships", ``, noList},
	} {
		got, err := exchange(s.socket, question(c.method, c.parameters))
		if err != nil || cmp.Diff(c.want, strings.Join(got, "\n")) != "" {
			t.Errorf("%s(%s): %v\n%s", c.method, c.parameters, err, cmp.Diff(c.want, strings.Join(got, "\n")))
		}
	}
	for message, want := range map[string]string{
		`{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"userName":"alice@physics","service":"io.systemd.DropIn"}}`: `{"error":"io.systemd.UserDatabase.BadService"}`,
		`{"method":"io.systemd.UserDatabase.GetUserRecord"}`:                                                                         `{"error":"io.systemd.UserDatabase.BadService"}`,
		strings.Replace(question("GetMemberships", `"groupName":"physics"`), `"more":true,`, "", 1):                                  `{"error":"org.varlink.service.ExpectedMore"}`,
		strings.Replace(question("GetMemberships", `"userName":"bob@physics"`), `"more":true,`, "", 1):                               member("bob@physics", false),
		`{"method":"io.systemd.UserDatabase.Remove"}`:                                                                                `{"parameters":{"method":"io.systemd.UserDatabase.Remove"},"error":"org.varlink.service.MethodNotFound"}`,
		`{"method":"io.systemd.Login.Get"}`:                                                                                          `{"parameters":{"interface":"io.systemd.Login"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"x"}`:                                                                                                             `{"parameters":{"interface":""},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"a.b"}}`:                                  `{"parameters":{"interface":"a.b"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"org.varlink.service.GetInterfaceDescription"}`:                                                                   `{"parameters":{"parameter":"interface"},"error":"org.varlink.service.InvalidParameter"}`,
	} {
		if got, err := exchange(s.socket, message); err != nil || strings.Join(got, "\n") != want {
			t.Errorf("%s: %v, %v\nwant %s", message, got, err, want)
		}
	}
}

// TestRootWhoSeesWhom: a user of the grid sees her own VO, all others but root
// nothing.
func TestRootWhoSeesWhom(t *testing.T) {
	s := newStage(t)
	for _, c := range []struct {
		uid                uint32
		physics, chemistry bool
	}{
		{0, true, true},
		{alice, true, false},
		{bob, true, false},
		{carol, false, true},
		{1, false, false},
		{65534, false, false},
		{session.LastID, false, false},  // no user of any VO
		{session.FirstID, false, false}, // a group's number
	} {
		questions := map[string]bool{
			question("GetUserRecord", `"userName":"alice@physics"`):                              c.physics,
			question("GetUserRecord", fmt.Sprintf(`"uid":%d`, alice)):                            c.physics,
			question("GetUserRecord", fmt.Sprintf(`"userName":"alice@physics","uid":%d`, carol)): c.physics || c.chemistry,
			question("GetGroupRecord", `"groupName":"physics"`):                                  c.physics,
			question("GetGroupRecord", fmt.Sprintf(`"gid":%d`, session.FirstID)):                 c.physics,
			question("GetMemberships", `"groupName":"physics"`):                                  c.physics,
			question("GetMemberships", `"userName":"alice@physics"`):                             c.physics,
			question("GetUserRecord", `"userName":"carol@chemistry"`):                            c.chemistry,
			question("GetUserRecord", fmt.Sprintf(`"uid":%d`, carol)):                            c.chemistry,
			question("GetGroupRecord", fmt.Sprintf(`"gid":%d`, session.FirstID+2)):               c.chemistry,
		}
		asked := slices.Collect(maps.Keys(questions))
		for i, got := range s.as(t, c.uid, asked...) {
			if (got != nothing) != questions[asked[i]] {
				t.Errorf("uid %d: %s\n%s", c.uid, asked[i], got)
			}
		}
	}
}

// TestRootSnapshotsChange: what is published, replaced, taken back or broken is
// so at once, and one VO's broken snapshot is nothing to the others.
func TestRootSnapshotsChange(t *testing.T) {
	s := newStage(t)
	expect := func(parameters, want string) {
		t.Helper()
		got, err := exchange(s.socket, question("GetUserRecord", parameters))
		if err != nil || !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s: %v, %v; want %s", parameters, got, err, want)
		}
	}
	const gid = session.FirstID + 2
	chemistry := wire.Snapshot{VO: "chemistry", Generation: 2, GID: gid, Groups: []wire.SnapshotGroup{{Name: "chemistry", GID: gid}}}
	if err := wire.WriteSnapshot(s.nss, chemistry); err != nil {
		t.Fatal(err)
	}
	expect(`"userName":"carol@chemistry"`, "NoRecordFound")
	if err := os.Truncate(wire.SnapshotPath(s.nss, "chemistry"), 100); err != nil {
		t.Fatal(err)
	}
	expect(`"userName":"carol@chemistry"`, "ServiceNotAvailable")
	expect(fmt.Sprintf(`"uid":%d`, carol), "ServiceNotAvailable")
	expect(fmt.Sprintf(`"uid":%d`, alice), `"alice@physics"`)
	expect(`"userName":"alice@physics"`, `"alice@physics"`)
	expect(`"userName":"root"`, "NoRecordFound")
	expect(`"uid":0`, "NoRecordFound")
	if err := wire.RemoveSnapshot(s.nss, "chemistry"); err != nil {
		t.Fatal(err)
	}
	expect(`"userName":"carol@chemistry"`, "NoRecordFound")
	if err := os.RemoveAll(s.nss); err != nil {
		t.Fatal(err)
	}
	expect(`"userName":"alice@physics"`, "NoRecordFound")
	expect(fmt.Sprintf(`"uid":%d`, alice), "NoRecordFound")
}

// TestRootSocket: it is there while the service runs, replaces one that a killed
// process left, and nothing else.
func TestRootSocket(t *testing.T) {
	s := newStage(t)
	st, err := os.Stat(s.socket)
	if err != nil || st.Mode() != os.ModeSocket|0o666 {
		t.Fatal(st, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := userdb.Alive(ctx, s.socket); err != nil {
		t.Error(err)
	}
	s.stop()
	if _, err := os.Lstat(s.socket); !os.IsNotExist(err) {
		t.Error("the socket is still there:", err)
	}
	if err := userdb.Alive(ctx, s.socket); err == nil {
		t.Error("a service that has ended is alive")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s.start(t)
	if err := userdb.Alive(ctx, s.socket); err != nil {
		t.Error(err)
	}
	s.stop()
	for name, at := range map[string]string{"a file": filepath.Join(s.dir, "asocket"), "no directory": filepath.Join(s.dir, "none/x")} {
		if name == "a file" {
			if err := os.WriteFile(at, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if srv, err := userdb.New(userdb.Config{Snapshots: s.nss, Socket: at}, nil); err == nil {
			srv.Close()
			t.Errorf("listens at %s", name)
		}
	}
}
