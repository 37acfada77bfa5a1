package userdb_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/userdb"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/need"
)

const (
	alice = session.FirstID + 1000
	bob   = session.FirstID + 1001 // of her VO
	carol = session.FirstID + 1002 // of another
)

// asker is the argument by which this binary becomes a client of another uid.
const asker = "ask"

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == asker {
		for _, message := range os.Args[3:] {
			out, err := exchange(os.Args[2], message)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Print(strings.Join(out, "\n"), "\x00")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// exchange sends one message and gives all its replies.
func exchange(socket, message string) ([]string, error) {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(8 * time.Second))
	if _, err := c.Write(append([]byte(message), 0)); err != nil {
		return nil, err
	}
	var all []string
	for in := bufio.NewReader(c); ; {
		b, err := in.ReadBytes(0)
		if err != nil {
			return all, err
		}
		b = bytes.TrimSuffix(b, []byte{0})
		all = append(all, string(b))
		var r struct{ Continues bool }
		if err := json.Unmarshal(b, &r); err != nil || !r.Continues {
			return all, err
		}
	}
}

// stage is a service over the snapshots of two VOs.
type stage struct {
	dir, nss, socket string
	stop             func()
}

func user(account string, uid uint32, groups ...uint32) wire.SnapshotUser {
	name, vo, _ := strings.Cut(account, "@")
	return wire.SnapshotUser{Passwd: wire.Passwd{Name: account, UID: uid, GID: uid, Gecos: account,
		Dir: "/home/xos/" + vo + "/" + name, Shell: "/bin/bash"}, Groups: groups}
}

func newStage(t *testing.T) stage {
	t.Helper()
	need.Root(t)
	// Not below t.TempDir, which others may not pass.
	dir, err := os.MkdirTemp("/run", "xos-userdb-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := stage{dir: dir, nss: filepath.Join(dir, "nss"), socket: filepath.Join(dir, "userdb", userdb.Service)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{s.nss, filepath.Dir(s.socket)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const phys, higgs, chem = session.FirstID, session.FirstID + 1, session.FirstID + 2
	for _, snap := range []wire.Snapshot{
		{VO: "physics", Generation: 1, GID: phys, Groups: []wire.SnapshotGroup{{Name: "physics", GID: phys}, {Name: "physics:higgs", GID: higgs}},
			Users: []wire.SnapshotUser{user("alice@physics", alice, phys, higgs), user("bob@physics", bob, phys)}},
		{VO: "chemistry", Generation: 1, GID: chem, Groups: []wire.SnapshotGroup{{Name: "chemistry", GID: chem}},
			Users: []wire.SnapshotUser{user("carol@chemistry", carol, chem)}},
	} {
		if err := wire.WriteSnapshot(s.nss, snap); err != nil {
			t.Fatal(err)
		}
	}
	s.start(t)
	return s
}

// start runs the service until the test or stop ends it.
func (s *stage) start(t *testing.T) {
	t.Helper()
	srv, err := userdb.New(userdb.Config{Snapshots: s.nss, Socket: s.socket, Version: "1.2"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(s.stop)
}

// as asks as a process of uid would, which runs this binary anew, and gives the
// replies to each message as lines.
func (s stage) as(t *testing.T, uid uint32, messages ...string) []string {
	t.Helper()
	self := filepath.Join(s.dir, "asker")
	if _, err := os.Stat(self); err != nil {
		exe, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(self, exe, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(self, append([]string{asker, s.socket}, messages...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%d asks: %v\n%s", uid, err, out)
	}
	all := strings.Split(string(out), "\x00")
	if len(all) != len(messages)+1 {
		t.Fatalf("%d asks %d questions: %q", uid, len(messages), out)
	}
	return all[:len(messages)]
}

// question writes a call of the interface; parameters without the service.
func question(method, parameters string) string {
	if parameters != "" {
		parameters += ","
	}
	return fmt.Sprintf(`{"method":"io.systemd.UserDatabase.%s","more":true,"parameters":{%s"service":%q}}`, method, parameters, userdb.Service)
}
