package guard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/test/need"
)

func TestRootSessionNamespaceHidesOthers(t *testing.T) {
	s := newStage(t)
	fd, err := s.SessionNamespace(context.Background(), "physics")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: carol, Gid: carol}}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	sees := func(uid uint32) bool {
		cmd := exec.Command("nsenter", "--mount=/proc/self/fd/3", "setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups",
			"test", "-e", "/proc/"+strconv.Itoa(other.Process.Pid))
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, fd)), "ns")}
		return cmd.Run() == nil
	}
	if sees(alice) {
		t.Error("alice sees carol's process")
	}
	if !sees(carol) {
		t.Error("carol does not see her own process")
	}
}

// TestRootSessionNamespaceHidesServices: the machine's sockets that tell of
// everybody are there for root, who logs people in and out, and for nobody else;
// those that came after the namespace too.
func TestRootSessionNamespaceHidesServices(t *testing.T) {
	s := newStage(t)
	name := fmt.Sprintf("io.systemd.xos-test-%d", os.Getpid())
	early, late, bus := "/run/systemd/"+name, "/run/systemd/"+name+"-late", "/run/dbus/"+name
	listen := func(at string) {
		t.Helper()
		l, err := net.Listen("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if err := os.Chmod(at, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/run/systemd"); err != nil {
		need.Missing(t, "/run/systemd", "this machine has no systemd")
	}
	listen(early)
	fd, err := s.SessionNamespace(t.Context(), "physics")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	listen(late)
	listen(bus)
	reaches := func(uid uint32, at string) string {
		cmd := exec.Command("nsenter", "--mount=/proc/self/fd/3", "setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups",
			s.bin, "actor", "connect", "unix", at)
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, fd)), "ns")}
		out, _ := cmd.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	for _, c := range []struct {
		at, root, user string
	}{
		{early, "ok", "permission denied"},
		{late, "no such file", "no such file"},
		{bus, "no such file", "no such file"},
		{"/run/systemd/.machine/run/" + filepath.Base(late), "ok", "permission denied"},
		{"/run/dbus/.machine/run/" + name, "ok", "permission denied"},
		{"/run/dbus/system_bus_socket", "", "permission denied"},
	} {
		if got := reaches(0, c.at); !strings.Contains(got, c.root) {
			t.Errorf("root at %s: %s", c.at, got)
		}
		if got := reaches(alice, c.at); !strings.Contains(got, c.user) {
			t.Errorf("alice at %s: %s", c.at, got)
		}
	}
}

// TestRootSessionNamespaceHidesDatabases: what programs write of logins beside
// wtmp is for root only, who goes on writing the machine's own, journals of the
// database beside it among them.
func TestRootSessionNamespaceHidesDatabases(t *testing.T) {
	s := newStage(t)
	name := fmt.Sprintf("xos-test-%d.db", os.Getpid())
	database, behind := "/var/log/"+name, "/var/log/.machine/run/"+name
	if err := os.WriteFile(database, []byte("alice@physics\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(database); os.Remove(database + "-journal") })
	fd, err := s.SessionNamespace(t.Context(), "chemistry")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	as := func(uid uint32, command string) (string, error) {
		cmd := exec.Command("nsenter", "--mount=/proc/self/fd/3", "setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups",
			"sh", "-c", command)
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, fd)), "ns")}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for _, at := range []string{database, behind} {
		if out, err := as(carol, "cat "+at); err == nil || strings.Contains(out, "alice") {
			t.Errorf("carol reads %s: %s", at, out)
		}
	}
	if out, err := as(0, "readlink /var/log/wtmp.db"); err != nil || out != ".machine/run/wtmp.db" {
		t.Errorf("the first to write the database of logins does so at %q (%v)", out, err)
	}
	if out, err := as(carol, "ls /var/log/.machine/run"); err == nil {
		t.Errorf("carol lists the machine's logs: %s", out)
	}
	if out, err := as(0, "echo carol@chemistry >>"+database+" && echo >$(realpath "+database+")-journal"); err != nil {
		t.Fatalf("root cannot write: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(database); err != nil || string(text) != "alice@physics\ncarol@chemistry\n" {
		t.Errorf("the machine has %q (%v)", text, err)
	}
	if _, err := os.Stat(database + "-journal"); err != nil {
		t.Error(err)
	}
}

// TestRootSessionNamespaceOutlivesTheGuard: who logs in after a restart shares
// /tmp and IPC with who logged in before.
func TestRootSessionNamespaceOutlivesTheGuard(t *testing.T) {
	s := newStage(t)
	inode := func(g *guard.Guard) uint64 {
		t.Helper()
		fd, err := g.SessionNamespace(t.Context(), "physics")
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	first := inode(s.Guard)
	s.Guard.Close()
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if again := inode(next); again != first {
		t.Errorf("namespace %d became %d", first, again)
	}
	if _, err := next.SessionNamespace(t.Context(), "../etc"); !xos.Is(err, xos.Invalid) {
		t.Errorf("a VO's name leads elsewhere: %v", err)
	}
}
