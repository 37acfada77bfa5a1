package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/aem"
)

// The descriptors that the job's pid 1 has beside its stdio.
const (
	controlFD = 3 // read: the command, then what to signal
	reportFD  = 4 // write: how the command ended
)

// command is the first line pid 1 reads, as JSON.
type command struct {
	Argv, Env []string
	Directory string
	Umask     uint32
	TTY       bool
}

// report is what pid 1 writes: once when the command runs (or never, if it
// cannot), once when it has ended.
type report struct {
	Started bool
	Exit    *aem.Exit
}

// request asks pid 1 for a signal to the command or, with Group, to its
// process group.
type request struct {
	Signal int
	Group  bool
}

// First is pid 1 of a job's pid namespace. It runs with the user's ids and no
// capability. It starts the command as leader of a session of its own, since
// the kernel shields pid 1 itself from signals; it reaps what the job leaves
// behind; and it ends, and with it the namespace, when the command or the
// supervisor does.
func First() int {
	// As pid 1 nothing may end this process but its own decision. Caught, not
	// ignored: the command would inherit that.
	signal.Notify(make(chan os.Signal, 1))

	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(reportFD)
	control := bufio.NewReaderSize(os.NewFile(controlFD, "control"), 64<<10)
	reports := json.NewEncoder(os.NewFile(reportFD, "report"))

	var c command
	line, err := control.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &c) != nil || len(c.Argv) == 0 {
		return 1
	}
	pid, code := start(c)
	if code != 0 {
		reports.Encode(report{Exit: &aem.Exit{Code: code}})
		return 0
	}
	reports.Encode(report{Started: true})
	// The stdio belongs to the command alone: its end must be seen.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		for fd := range 3 {
			unix.Dup3(int(null.Fd()), fd, 0)
		}
	}

	go func() {
		for {
			line, err := control.ReadBytes('\n')
			if err != nil {
				os.Exit(1) // the supervisor is gone
			}
			var r request
			if json.Unmarshal(line, &r) != nil {
				continue
			}
			to := pid
			if r.Group {
				to = -pid
			}
			syscall.Kill(to, syscall.Signal(r.Signal))
		}
	}()

	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1
		case got == pid && ws.Exited():
			reports.Encode(report{Exit: &aem.Exit{Code: ws.ExitStatus()}})
			return 0
		case got == pid && ws.Signaled():
			reports.Encode(report{Exit: &aem.Exit{Signal: int(ws.Signal())}})
			return 0
		}
	}
}

// start runs the command; if that fails it says why on standard error and
// gives the code a shell would.
func start(c command) (pid, code int) {
	syscall.Umask(int(c.Umask & 0o777))
	name := c.Argv[0]
	if err := os.Chdir(c.Directory); err != nil {
		return 0, fail(aem.ExitCannotExecute, c.Directory, err)
	}
	path, err := lookup(name, c.Env)
	if errors.Is(err, errNoCommand) {
		fmt.Fprintf(os.Stderr, "xsub: %s: command not found\n", name)
		return 0, aem.ExitNotFound
	}
	attr := &syscall.ProcAttr{Env: c.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	if c.TTY {
		// The terminal is this session's; let it go, for the command's.
		unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
		attr.Sys.Setctty = true
	}
	if err == nil {
		pid, err = syscall.ForkExec(path, c.Argv, attr)
	}
	if err == syscall.ENOEXEC { // a script without "#!", as shells do it
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", path}, c.Argv[1:]...), attr)
	}
	switch {
	case err == nil:
		return pid, 0
	case errors.Is(err, os.ErrNotExist):
		return 0, fail(aem.ExitNotFound, name, err)
	}
	return 0, fail(aem.ExitCannotExecute, name, err)
}

func fail(code int, what string, err error) int {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	fmt.Fprintf(os.Stderr, "xsub: %s: %v\n", what, err)
	return code
}

var errNoCommand = errors.New("command not found")

// lookup finds a command as execvp(3) does, by the job's own PATH.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	var path string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	err := errNoCommand
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		at := filepath.Join(dir, name)
		st, e := os.Stat(at)
		if e != nil || st.IsDir() {
			continue
		}
		if unix.Access(at, unix.X_OK) == nil {
			if !strings.Contains(at, "/") {
				at = "./" + at
			}
			return at, nil
		}
		err = os.ErrPermission
	}
	return "", err
}
