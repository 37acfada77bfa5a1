package supervise_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/test/need"
)

// testUID stands for a grid user of the tests; no account has it.
const testUID = 1879048999

var supervisor string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "xos-job")
	if err != nil {
		panic(err)
	}
	supervisor = filepath.Join(dir, "xos-job")
	out, err := exec.Command("go", "build", "-o", supervisor, "github.com/xtreemos/xos/cmd/xos-job").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "building xos-job: %v\n%s", err, out)
		os.Exit(1)
	}
	os.Chmod(dir, 0o755)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// job is a running unit.
type job struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	spec unit.Spec
}

func launch(t *testing.T, edit func(*unit.Spec), argv ...string) *job {
	t.Helper()
	need.Root(t)
	dir, err := os.MkdirTemp("", "xosj")
	if err != nil {
		t.Fatal(err)
	}
	id := "test-" + strings.ToLower(filepath.Base(dir))
	j := &job{t: t, dir: dir, spec: unit.Spec{
		Job: xos.JobID(id), Account: xos.Account{User: "alice", VO: "testvo"}, UID: testUID, GID: testUID, Groups: []uint32{testUID + 1},
		Argv: argv, Env: []string{"PATH=/usr/bin:/bin"}, Home: "/", Umask: 0o22, Cgroup: "/xos/vo-aemtest/job-" + id,
	}}
	if edit != nil {
		edit(&j.spec)
	}
	if err := unit.Write(filepath.Join(dir, unit.SpecFile), j.spec); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	j.cmd = exec.Command(supervisor, dir)
	j.cmd.ExtraFiles = []*os.File{w}
	j.cmd.Stderr = &stderr
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS}
	if err := j.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		j.cmd.Process.Kill()
		j.cmd.Wait()
		os.RemoveAll(dir)
		for _, c := range []string{"unified", "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "."} {
			os.Remove("/sys/fs/cgroup/" + c + j.spec.Cgroup)
			os.Remove("/sys/fs/cgroup/" + c + "/xos/vo-aemtest")
		}
		if t.Failed() {
			t.Logf("xos-job said: %s", stderr.String())
		}
	})
	answer, _ := io.ReadAll(r)
	if string(answer) != "ok" {
		t.Fatalf("xos-job: %q", answer)
	}
	return j
}

// link is one connection to a unit.
type link struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader

	out, err bytes.Buffer
	from     xosv1.ToJob
	last     *xosv1.Job
	acked    int64
	done     int64
	ended    bool
	notices  []string
}

func (j *job) attach(hello *xosv1.ToJob) *link {
	j.t.Helper()
	c, err := net.Dial("unix", filepath.Join(j.dir, unit.SocketFile))
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { c.Close() })
	hello.Job = string(j.spec.Job)
	l := &link{t: j.t, conn: c, r: bufio.NewReader(c)}
	l.send(hello)
	return l
}

func (l *link) send(m *xosv1.ToJob) {
	l.t.Helper()
	if err := unit.WriteFrame(l.conn, m); err != nil {
		l.t.Fatal(err)
	}
}

// until reads frames until a condition holds.
func (l *link) until(what string, cond func() bool) {
	l.t.Helper()
	l.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for !cond() {
		var m xosv1.FromJob
		if err := unit.ReadFrame(l.r, &m); err != nil {
			l.t.Fatalf("waiting for %s: %v (stdout %q, stderr %q, job %v)", what, err, l.out.String(), l.err.String(), l.last)
		}
		l.out.Write(m.Stdout)
		l.err.Write(m.Stderr)
		if m.Job != nil {
			l.last, l.acked, l.done = m.Job, m.StdinAcked, m.SignalsDone
		}
		if m.Notice != "" {
			l.notices = append(l.notices, m.Notice)
		}
		l.ended = l.ended || m.Ended
	}
}

func (l *link) end() { l.t.Helper(); l.until("the end", func() bool { return l.ended }) }

func TestRootCommandRuns(t *testing.T) {
	tests := []struct {
		name           string
		argv           []string
		edit           func(*unit.Spec)
		stdout, stderr string
		exit           aem.Exit
	}{
		{name: "code", argv: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, stdout: "out\n", stderr: "err\n", exit: aem.Exit{Code: 3}},
		{name: "signal", argv: []string{"sh", "-c", "kill -TERM $$"}, exit: aem.Exit{Signal: 15}},
		{name: "not found", argv: []string{"no-such-program"}, stderr: "xsub: no-such-program: command not found\n", exit: aem.Exit{Code: 127}},
		{name: "path not found", argv: []string{"/no/such"}, stderr: "xsub: /no/such: no such file or directory\n", exit: aem.Exit{Code: 127}},
		{name: "not executable", argv: []string{"/etc/passwd"}, stderr: "xsub: /etc/passwd: permission denied\n", exit: aem.Exit{Code: 126}},
		{name: "no directory", argv: []string{"true"}, edit: func(s *unit.Spec) { s.Directory = "/nowhere" }, stderr: "xsub: /nowhere: no such file or directory\n", exit: aem.Exit{Code: 126}},
		{name: "ids", argv: []string{"sh", "-c", "id -u; id -g; id -G; umask"}, stdout: fmt.Sprintf("%d\n%d\n%d %d\n0027\n", testUID, testUID, testUID, testUID+1), edit: func(s *unit.Spec) { s.Umask = 0o27 }},
		{name: "no privilege", argv: []string{"sh", "-c", "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status"},
			stdout: "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"},
		{name: "descriptors", argv: []string{"sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"}, stdout: "0 1 2 3 "},
		{name: "own view", argv: []string{"sh", "-c", "set -- /proc/[0-9]*; echo $#; touch /etc/x 2>&1; touch /tmp/mine /dev/shm/mine && echo ok; ls /tmp; ls /run"},
			stdout: "2\ntouch: cannot touch '/etc/x': Read-only file system\nok\nmine\nxos-init\n"},
		{name: "environment", argv: []string{"env"}, edit: func(s *unit.Spec) { s.Env = append(s.Env, "A=b c") }, stdout: "PATH=/usr/bin:/bin\nA=b c\n"},
		{name: "no stdin", argv: []string{"cat"}},
		{name: "leftovers end", argv: []string{"sh", "-c", "sleep 100 & echo started"}, stdout: "started\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := launch(t, tt.edit, tt.argv...)
			// The first read may come after the end: the files have it all then.
			j.cmd.Wait()
			var st unit.State
			if err := unit.Read(filepath.Join(j.dir, unit.StateFile), &st); err != nil {
				t.Fatal(err)
			}
			read := func(name string) string {
				s, err := unit.OpenSpool(filepath.Join(j.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				buf := make([]byte, unit.SpoolSize)
				n, _, err := s.ReadFrom(t.Context(), 0, buf)
				if err != nil && err != io.EOF {
					t.Fatal(err)
				}
				return string(buf[:n])
			}
			if got := read(unit.StdoutFile); got != tt.stdout {
				t.Errorf("stdout %q, want %q", got, tt.stdout)
			}
			if got := read(unit.StderrFile); got != tt.stderr {
				t.Errorf("stderr %q, want %q", got, tt.stderr)
			}
			if st.Exit != tt.exit || st.State != aem.Done {
				t.Errorf("state %s, exit %+v, want %+v", st.State, st.Exit, tt.exit)
			}
		})
	}
}

func TestRootSignals(t *testing.T) {
	const script = `trap 'echo usr1' USR1; trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.02; done`
	t.Run("forwarded", func(t *testing.T) {
		l := launch(t, nil, "sh", "-c", script).attach(&xosv1.ToJob{})
		l.until("ready", func() bool { return l.out.String() == "ready\n" })
		l.send(&xosv1.ToJob{Signal: int32(unix.SIGUSR1)})
		l.until("usr1", func() bool { return strings.Contains(l.out.String(), "usr1") })
		l.send(&xosv1.ToJob{Signal: -int32(unix.SIGINT)})
		l.end()
		if l.last.ExitCode != 5 || l.last.State != xosv1.JobState_JOB_STATE_DONE {
			t.Errorf("ended as %v", l.last)
		}
	})
	t.Run("freeze, thaw, kill", func(t *testing.T) {
		j := launch(t, nil, "sh", "-c", "sleep 100 & while :; do echo x; sleep 0.01; done")
		l := j.attach(&xosv1.ToJob{})
		l.until("output", func() bool { return l.out.Len() > 0 })
		l.send(&xosv1.ToJob{Signal: int32(unix.SIGSTOP)})
		l.until("suspension", func() bool { return l.last != nil && l.last.State == xosv1.JobState_JOB_STATE_SUSPENDED })
		events, err := os.ReadFile("/sys/fs/cgroup/unified" + j.spec.Cgroup + "/cgroup.events")
		if err == nil && !strings.Contains(string(events), "frozen 1") {
			t.Errorf("not frozen: %s", events)
		}
		l.send(&xosv1.ToJob{Signal: int32(unix.SIGCONT)})
		n := 0
		l.until("resumption", func() bool {
			if n == 0 && l.last.State == xosv1.JobState_JOB_STATE_RUNNING {
				n = l.out.Len()
			}
			return n > 0 && l.out.Len() > n
		})
		l.send(&xosv1.ToJob{Signal: int32(unix.SIGSTOP)})
		l.send(&xosv1.ToJob{Signal: int32(unix.SIGKILL)}) // the frozen die too
		l.end()
		if l.last.ExitSignal != 9 || l.last.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("ended as %v", l.last)
		}
	})
	t.Run("default action", func(t *testing.T) {
		l := launch(t, nil, "sleep", "100").attach(&xosv1.ToJob{Signal: int32(unix.SIGTERM)})
		l.end()
		if l.last.ExitSignal != 15 || l.last.State != xosv1.JobState_JOB_STATE_CANCELED {
			t.Errorf("ended as %v", l.last)
		}
	})
	t.Run("time limit", func(t *testing.T) {
		l := launch(t, func(s *unit.Spec) { s.Limits = map[string]int64{"seconds": 1} }, "sleep", "100").attach(&xosv1.ToJob{Watch: true})
		l.end()
		if l.last.ExitSignal != 9 || !strings.Contains(l.last.Reason, "time limit of 1 seconds") {
			t.Errorf("ended as %v", l.last)
		}
	})
}

func TestRootReaderIsReplaced(t *testing.T) {
	// Three times what the spool holds: the job has to wait for its reader.
	const lines = 400_000
	j := launch(t, nil, "seq", fmt.Sprint(lines))
	var got bytes.Buffer
	for i := 0; ; i++ {
		l := j.attach(&xosv1.ToJob{StdoutFrom: int64(got.Len())})
		stop := 300_000 * (i + 1)
		l.until("some output", func() bool {
			if got.Len()+l.out.Len() > stop && i < 5 {
				return true
			}
			if !l.ended {
				unit.WriteFrame(l.conn, &xosv1.ToJob{StdoutFrom: int64(got.Len() + l.out.Len())}) // it may have left just now
			}
			return l.ended
		})
		got.Write(l.out.Bytes())
		l.conn.Close()
		if l.ended {
			break
		}
	}
	var want bytes.Buffer
	for i := 1; i <= lines; i++ {
		fmt.Fprintln(&want, i)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, want %d, or others", got.Len(), want.Len())
	}
}

func TestRootStdin(t *testing.T) {
	j := launch(t, func(s *unit.Spec) { s.Stdin = true }, "cat")
	l := j.attach(&xosv1.ToJob{Stdin: []byte("hello ")})
	l.until("an echo", func() bool { return l.out.String() == "hello " })
	l.conn.Close()
	l = j.attach(&xosv1.ToJob{StdoutFrom: 6})
	l.until("the state", func() bool { return l.last != nil })
	if l.acked != 6 {
		t.Errorf("acknowledged %d bytes", l.acked)
	}
	l.send(&xosv1.ToJob{StdoutFrom: 6, StdinOffset: 2, Stdin: []byte("llo world"), StdinEof: true}) // partly a repetition
	l.end()
	if l.out.String() != "world" || l.last.ExitCode != 0 {
		t.Errorf("got %q", l.out.String())
	}
}

func TestRootTerminal(t *testing.T) {
	j := launch(t, func(s *unit.Spec) { s.TTY, s.Stdin = true, true }, "sh", "-c", "tty; stty size; exec cat")
	l := j.attach(&xosv1.ToJob{})
	l.until("its size", func() bool { return strings.Contains(l.out.String(), "24 80") })
	l.send(&xosv1.ToJob{Rows: 50, Columns: 132})
	l.send(&xosv1.ToJob{Stdin: []byte("abc\n")})
	l.until("echo and copy", func() bool { return strings.Count(l.out.String(), "abc") == 2 })
	l.send(&xosv1.ToJob{StdinOffset: 4, Stdin: []byte{3}}) // ^C
	l.end()
	if l.last.ExitSignal != 2 {
		t.Errorf("ended as %v, output %q", l.last, l.out.String())
	}
}

func TestRootSupervisorKilled(t *testing.T) {
	j := launch(t, nil, "sh", "-c", "sleep 1000 & echo $$; sleep 1000")
	l := j.attach(&xosv1.ToJob{})
	l.until("output", func() bool { return l.out.Len() > 0 })
	procs := "/sys/fs/cgroup/unified" + j.spec.Cgroup + "/cgroup.procs"
	if _, err := os.Stat(procs); err != nil {
		procs = "/sys/fs/cgroup" + j.spec.Cgroup + "/cgroup.procs"
	}
	if data, _ := os.ReadFile(procs); len(strings.Fields(string(data))) < 3 {
		t.Fatalf("only %q in the job's cgroup", data)
	}
	j.cmd.Process.Kill()
	j.cmd.Wait()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(procs)
		if len(data) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still running: %s", data)
		}
	}
	var st unit.State
	if err := unit.Read(filepath.Join(j.dir, unit.StateFile), &st); err != nil {
		t.Fatal(err)
	}
	if st.State.Ended() || st.Alive() {
		t.Errorf("a killed supervisor left %+v", st)
	}
}

func TestRootHome(t *testing.T) {
	homes := t.TempDir()
	for _, d := range []string{"physics/alice", "chemistry/carol"} {
		if err := os.MkdirAll(filepath.Join(homes, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(homes, "physics/alice")
	os.Chmod(filepath.Dir(homes), 0o755)
	os.Chmod(homes, 0o755)
	os.Chown(home, testUID, testUID)
	j := launch(t, func(s *unit.Spec) {
		s.HomesRoot, s.Homes, s.Home = homes, filepath.Join(homes, "physics"), home
		s.Limits = map[string]int64{"processes": 50}
	}, "sh", "-c", "pwd; echo data >file; ls "+homes)
	j.cmd.Wait()
	if data, err := os.ReadFile(filepath.Join(home, "file")); err != nil || string(data) != "data\n" {
		t.Errorf("the home has %q, %v", data, err)
	}
	s, err := unit.OpenSpool(filepath.Join(j.dir, unit.StdoutFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	buf := make([]byte, 4096)
	n, _, _ := s.ReadFrom(t.Context(), 0, buf)
	if want := home + "\nphysics\n"; string(buf[:n]) != want {
		t.Errorf("output %q, want %q", buf[:n], want)
	}
}
