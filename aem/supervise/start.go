package supervise

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"

	"github.com/xtreemos/xos/aem/unit"
)

// start makes the container and lets pid 1 run the command.
func (u *Unit) start() ([]output, *json.Decoder, error) {
	root, hybrid, err := unifiedRoot()
	if err != nil {
		return nil, nil, err
	}
	if err := leave(root); err != nil {
		u.log.Warn("staying in the cgroup of the service that started this", "error", err)
	}
	u.cgroup = cgroup(filepath.Join(root, u.spec.Cgroup))
	if err := os.MkdirAll(string(u.cgroup), 0o755); err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	rootfs := filepath.Join(u.dir, unit.RootDir)
	if err := prepareRoot(rootfs, u.spec.HomesRoot); err != nil {
		return nil, nil, err
	}
	cfg, notices := config(u.spec, rootfs, self, controllers(root, hybrid))
	u.state.Notices = notices
	u.container, err = libcontainer.Create(filepath.Join(u.dir, unit.RuntimeDir), string(u.spec.Job), cfg)
	if err != nil {
		return nil, nil, err
	}

	var files pipes
	defer files.closeTheirs()
	control, controlW := files.toJob()
	reportsR, reports := files.fromJob()
	u.process = &libcontainer.Process{
		Args: []string{initPath, "first"}, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + u.spec.Home, "GOMAXPROCS=1", "GOGC=off"}, Cwd: "/",
		UID: int(u.spec.UID), GID: int(u.spec.GID),
		ExtraFiles: []*os.File{control, reports}, Init: true,
	}
	for _, g := range u.spec.Groups {
		u.process.AdditionalGroups = append(u.process.AdditionalGroups, int(g))
	}
	var outputs []output
	var console *os.File
	if u.spec.TTY {
		ours, theirs := files.socketpair()
		u.process.ConsoleSocket, console = theirs, ours
		u.process.ConsoleWidth, u.process.ConsoleHeight = cmp.Or(u.spec.Columns, 80), cmp.Or(u.spec.Rows, 24)
	} else {
		in, inW := files.toJob()
		outR, out := files.fromJob()
		errR, errW := files.fromJob()
		if files.err != nil {
			return nil, nil, files.err
		}
		// So that the job can open /dev/stdout and the like.
		for _, f := range []*os.File{in, out, errW} {
			if err := f.Chown(int(u.spec.UID), int(u.spec.GID)); err != nil {
				return nil, nil, err
			}
		}
		u.process.Stdin, u.process.Stdout, u.process.Stderr = in, out, errW
		outputs = []output{{outR, u.stdout}, {errR, u.stderr}}
		u.stdin = newStdin(inW, false)
		if !u.spec.Stdin {
			u.stdin.end()
		}
	}
	if files.err != nil {
		return nil, nil, files.err
	}
	u.control = controlW

	if err := u.container.Start(u.process); err != nil {
		return nil, nil, err
	}
	// pid 1 waits. Only now, inside its cgroup, may it go on.
	pid, err := u.process.Pid()
	if err != nil {
		return nil, nil, err
	}
	if hybrid {
		if err := u.cgroup.add(pid); err != nil {
			return nil, nil, err
		}
	}
	if u.spec.TTY {
		master, err := utils.RecvFile(console)
		if err != nil {
			return nil, nil, err
		}
		console.Close()
		unix.SetNonblock(int(master.Fd()), true)
		fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		master.Close()
		if err != nil {
			return nil, nil, err
		}
		u.tty = os.NewFile(uintptr(fd), "terminal") // now known to the poller
		outputs = []output{{u.tty, u.stdout}}
		u.stderr.End()
		u.stdin = newStdin(u.tty, true)
	}
	if err := u.container.Exec(); err != nil {
		return nil, nil, err
	}
	dir := u.spec.Directory
	if dir == "" {
		dir = u.spec.Home
	}
	if err := json.NewEncoder(u.control).Encode(command{Argv: u.spec.Argv, Env: u.spec.Env,
		Directory: dir, Umask: u.spec.Umask, TTY: u.spec.TTY}); err != nil {
		return nil, nil, err
	}
	return outputs, json.NewDecoder(reportsR), nil
}

// destroy removes what start made, the unit's directory excepted.
func (u *Unit) destroy() {
	if u.process != nil {
		u.mu.Lock()
		u.killFirst()
		u.mu.Unlock()
		u.reap()
	}
	if u.container != nil {
		if err := u.container.Destroy(); err != nil {
			u.log.Warn("removing the container", "job", u.spec.Job, "error", err)
		}
	}
	if u.cgroup != "" {
		unix.Rmdir(string(u.cgroup))
	}
}

// pipes makes descriptors and closes, at the end, those that are the job's.
type pipes struct {
	theirs []*os.File
	err    error
}

// toJob makes a pipe whose reading end is the job's.
func (p *pipes) toJob() (theirs, ours *os.File) {
	r, w, err := os.Pipe()
	p.err = errors.Join(p.err, err)
	p.theirs = append(p.theirs, r)
	return r, w
}

// fromJob makes a pipe whose writing end is the job's.
func (p *pipes) fromJob() (ours, theirs *os.File) {
	r, w, err := os.Pipe()
	p.err = errors.Join(p.err, err)
	p.theirs = append(p.theirs, w)
	return r, w
}

func (p *pipes) socketpair() (ours, theirs *os.File) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, nil
	}
	theirs = os.NewFile(uintptr(fds[1]), "console-"+strconv.Itoa(fds[1]))
	p.theirs = append(p.theirs, theirs)
	return os.NewFile(uintptr(fds[0]), "console"), theirs
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
}
