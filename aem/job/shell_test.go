package job_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/need"
)

// shell is a real bash on a terminal of its own, on machine node1.
type shell struct {
	t   *testing.T
	tty *os.File
	pid int

	mu  sync.Mutex
	out bytes.Buffer
	at  int // what was looked at
}

// openTerminal gives the two sides of a new one.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 101})
	return master, slave
}

func (mc *machine) shell(tools string) *shell {
	t := mc.w.t
	t.Helper()
	if err := os.MkdirAll("/run/xos", 0o755); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	master, slave := openTerminal(t)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "mount --bind "+mc.dir+" /run/xos && exec bash --norc --noprofile -i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + tools + ":/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/home/none", "PS1=> ", "TERM=dumb", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	s := &shell{t: t, tty: master, pid: cmd.Process.Pid}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.out.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); master.Close() })
	s.expect(`> `)
	s.do("stty -echo; set +o history", ``)
	return s
}

func (s *shell) write(text string) {
	s.t.Helper()
	if _, err := s.tty.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits for a match in what came since the last one, and gives its
// groups.
func (s *shell) expect(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	var got string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		rest := s.out.Bytes()[s.at:]
		if loc := re.FindSubmatchIndex(rest); loc != nil {
			m := re.FindSubmatch(rest)
			s.at += loc[1]
			s.mu.Unlock()
			groups := make([]string, len(m))
			for i := range m {
				groups[i] = string(m[i])
			}
			return groups
		}
		got = string(rest)
		s.mu.Unlock()
	}
	s.t.Fatalf("waited for %q, but the terminal shows %q", pattern, got)
	return nil
}

// key types a control character, which the terminal sends to the program that
// has it. bash names a program that it brings back before it gives it the
// terminal, and takes an interrupt in between for its own.
func (s *shell) key(c byte) {
	s.t.Helper()
	until(s.t, "a program with the terminal", func() bool {
		group, err := unix.IoctlGetInt(int(s.tty.Fd()), unix.TIOCGPGRP)
		if err != nil {
			s.t.Fatal(err)
		}
		return group != s.pid
	})
	s.write(string(c))
}

// do types a line and waits for its output, and for the next prompt.
func (s *shell) do(line, pattern string) []string {
	s.t.Helper()
	s.write(line + "\n")
	m := s.expect(pattern)
	s.expect(`> `)
	return m
}

// run types a line and expects the exit status that $? then has.
func (s *shell) run(line string, status int) {
	s.t.Helper()
	s.write(line + "; echo \"<$?>\"\n")
	s.expect(fmt.Sprintf("<%d>", status))
	s.expect(`> `)
}

// tools builds the command line under its short names.
func tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	xos := filepath.Join(dir, "xos")
	if out, err := exec.Command("go", "build", "-o", xos, "github.com/xtreemos/xos/cmd/xos").CombinedOutput(); err != nil {
		t.Fatalf("building xos: %v\n%s", err, out)
	}
	for _, name := range []string{"xsub", "xps", "xkill", "xwait", "xjob"} {
		if err := os.Symlink("xos", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRootShell(t *testing.T) {
	t.Parallel()
	need.Root(t)
	need.Command(t, "bash")
	need.Command(t, "unshare")
	w := newWorld(t)
	// session.sock is where the tools look for it.
	if err := os.Symlink("sock", filepath.Join(w.node1.dir, "session.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.node1.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	until(t, "both machines", func() bool {
		found := 0
		for _, n := range []string{"node1", "node2"} {
			if w.node1.wait(w.node1.submit(on(n, spec("true")))).ExitCode == 0 {
				found++
			}
		}
		return found == 2
	})
	s := w.node1.shell(tools(t))
	const loop = `sh -c 'while :; do sleep 0.02; done'`
	background := func(flags string) string {
		s.write("xsub --node node2 " + flags + " &\n")
		s.expect(`\[\d+\] (\d+)`)
		s.expect(`> `)
		return s.do("until xps | grep -q running; do sleep 0.05; done; echo \"<$!>\"", `<(\d+)>`)[1]
	}
	gone := func() { s.do("while xps | grep -q node2; do sleep 0.05; done; echo none", `none`) }

	t.Run("status", func(t *testing.T) {
		s.run("xsub --node node2 -- sh -c 'exit 3'", 3)
		s.run("xsub no-such-program", 127)
		s.run("xsub /etc/passwd", 126)
		s.run("xsub -- sh -c 'kill -TERM $$'", 143)
		s.run("xsub --require 'cpus>=100000' true", 69)
		s.run("xsub --require nonsense true", 64)
		s.run("xsub", 64)
	})
	t.Run("output and input", func(t *testing.T) {
		s.do("echo hello | xsub -- sed s/hello/goodbye/", `goodbye`)
		s.do("xsub -- sh -c 'echo out; echo err >&2' 2>/dev/null", `out`)
		s.do("seq 100000 | xsub --node node2 md5sum", `dcf7f2c2a8a2d7ed2b9d0cfbe83a6c02|[0-9a-f]{32}`)
		s.do("test \"$(seq 100000 | xsub --node node2 cat | md5sum)\" = \"$(seq 100000 | md5sum)\" && echo same", `same`)
		s.do("xsub yes | head -n 1", `y`)
		s.write("xsub --node node2 cat\n")
		time.Sleep(200 * time.Millisecond) // typed when it reads, or kept by the terminal until then
		s.write("typed\n\x04")
		s.expect(`typed`)
		s.expect(`> `)
		s.do("xsub --env A=b --env HOME=/x -- sh -c 'echo $A $XOS_VO $USER'", `b physics alice@physics`)
		s.do("xsub --tty -- sh -c 'tty; stty size'", `/dev/pts/\d+\r\n33 101`)
	})
	t.Run("background, by its name", func(t *testing.T) {
		pid := background("--name sim -- " + loop)
		s.do("ps -o comm= -p "+pid, `(?m)^sim\s*$`)
		s.do("ps -o args= -p "+pid, `sim -c while`)
		s.do("ps -o comm= -C sim", `sim`)
		s.do("kill -STOP $!; until xps | grep -q suspended; do sleep 0.05; done; echo frozen", `frozen`)
		s.do("jobs", `Stopped`)
		s.do("kill -CONT $!; until xps | grep -q running; do sleep 0.05; done; echo thawed", `thawed`)
		s.run("kill $!; wait $!", 143)
		gone()
		pid = background("-- " + loop)
		s.run("kill -9 "+pid+"; wait "+pid, 137)
		gone()
		s.do("xps -a | tail -n 1", `canceled .*SIGKILL`)
		s.do("xsub -- sleep 0.3 &", `\[\d+\] \d+`) // is not stopped for the terminal's input
		s.run("wait $!", 0)
	})
	t.Run("keys", func(t *testing.T) {
		begin := func() {
			s.write("xsub --node node2 -- sh -c 'echo go; sleep 100; echo not reached'\n")
			s.expect(`go`)
		}
		begin()
		s.key(0x03)
		s.expect(`> `)
		s.run("(exit $?)", 130)
		begin()
		s.key(0x1a)
		s.expect(`Stopped`)
		s.expect(`> `)
		s.do("until xps | grep -q suspended; do sleep 0.05; done; echo frozen", `frozen`)
		s.do("bg; until xps | grep -q running; do sleep 0.05; done; echo thawed", `thawed`)
		s.write("fg\n")
		s.expect(`xsub`)
		s.key(0x03)
		s.expect(`> `)
		s.run("(exit $?)", 130)
		gone()
	})
	t.Run("by id", func(t *testing.T) {
		background("--name long -- " + loop)
		id := s.do("xps", `(test-[0-9a-f]+) +long`)[1]
		s.do("xjob show "+id, `name: +long`)
		s.do("xjob show --json "+id, `"execution(Node|_node)": *"node2"`)
		s.run("xkill -NONSENSE "+id, 64)
		s.do("xkill -STOP "+id+"; until xps | grep -q suspended; do sleep 0.05; done; echo frozen", `frozen`)
		s.run("xkill -CONT "+id+" && xkill "+id+"; xwait "+id, 143)
		s.run("wait $!", 143)
		s.run("xwait test-000000000000", 66)
	})
	t.Run("restarts", func(t *testing.T) {
		s.write("xsub --node node2 -- sh -c 'echo go; sleep 1.5; echo still here; exit 6'; echo \"<$?>\"\n")
		s.expect(`go`)
		w.node1.stopManager()
		w.node1.startManager()
		w.node2.Kill()
		w.node2.Start()
		s.expect(`still here`)
		s.expect(`<6>`)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := s.out.String(); strings.Contains(all, "panic") {
		t.Error(all)
	}
}
