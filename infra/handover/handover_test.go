package handover_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/infra/handover"
)

// server is a service in a process of its own: it says hello as its number.
func server(number, path string) error {
	held := handover.Take()
	l, err := held.Listen("greeter", path, 0o622)
	if err != nil {
		return err
	}
	held.Close()
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "%s", number)
		c.Close()
	}
}

func TestMain(m *testing.M) {
	if number := os.Getenv("HANDOVER_SERVER"); number != "" {
		fmt.Fprintln(os.Stderr, server(number, os.Getenv("HANDOVER_PATH")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// manager is a service manager with a store for descriptors.
type manager struct {
	t      *testing.T
	path   string
	notify *net.UnixConn
	stored map[string]*os.File
}

func newManager(t *testing.T) *manager {
	dir := t.TempDir()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &manager{t, filepath.Join(dir, "sock"), c, map[string]*os.File{}}
}

// start starts a server with what is stored, and has it ready.
func (m *manager) start(number string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "LISTEN_PID=$$ exec \"$0\"", os.Args[0])
	cmd.Env = append(os.Environ(), "HANDOVER_SERVER="+number, "HANDOVER_PATH="+m.path, "NOTIFY_SOCKET="+m.notify.LocalAddr().String())
	var names []string
	for name, f := range m.stored {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		names = append(names, name)
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Stderr = m.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line := make([]byte, 6); true {
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
			m.t.Fatalf("%q, %v", line, err)
		}
	}
	m.hear()
	return cmd
}

// hear takes what was sent until now.
func (m *manager) hear() {
	m.t.Helper()
	for {
		data, control := make([]byte, 4096), make([]byte, 4096)
		m.notify.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, cn, _, _, err := m.notify.ReadMsgUnix(data, control)
		if os.IsTimeout(err) {
			return
		}
		if err != nil {
			m.t.Fatal(err)
		}
		_, name, _ := strings.Cut(string(data[:n]), "FDNAME=")
		if strings.HasPrefix(string(data[:n]), "FDSTOREREMOVE=1") {
			m.stored[name].Close()
			delete(m.stored, name)
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) != 1 {
			m.t.Fatalf("%q: %v", data[:n], err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			m.t.Fatalf("%q: %v", data[:n], err)
		}
		m.stored[name] = os.NewFile(uintptr(fds[0]), name)
	}
}

func end(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func answer(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// TestKilled: who connects while there is no service is served by the next one.
func TestKilled(t *testing.T) {
	m := newManager(t)
	end(m.start("1"))
	waiting := []net.Conn{dial(t, m.path), dial(t, m.path)}
	if info, err := os.Stat(m.path); err != nil || info.Mode().Perm() != 0o622 {
		t.Errorf("%v, %v", info, err)
	}
	second := m.start("2")
	for _, c := range waiting {
		answer(t, c, "2")
	}
	end(second)
	c := dial(t, m.path)
	m.start("3")
	answer(t, c, "3")
	if len(m.stored) != 1 {
		t.Errorf("stored are %v", m.stored)
	}
}

// TestAnotherIsThere: the socket that is kept is of no use where the path leads
// elsewhere.
func TestAnotherIsThere(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(m *manager)
	}{
		{"removed", func(m *manager) { os.Remove(m.path) }},
		{"an older version's, which ended", func(m *manager) {
			kept := m.stored
			m.stored = map[string]*os.File{}
			os.Remove(m.path)
			end(m.start("old"))
			for _, f := range m.stored {
				f.Close()
			}
			m.stored = kept
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := newManager(t)
			end(m.start("1"))
			c.do(m)
			end(m.start("2"))
			waiting := dial(t, m.path)
			m.start("3")
			answer(t, waiting, "3")
		})
	}
}

// TestTwo: a second service does not take the first one's place.
func TestTwo(t *testing.T) {
	m := newManager(t)
	m.start("1")
	t.Setenv("NOTIFY_SOCKET", "")
	if l, err := handover.Take().Listen("greeter", m.path, 0o622); err == nil {
		l.Close()
		t.Error("both serve")
	}
	answer(t, dial(t, m.path), "1")
}
