package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// system is what would need more than the attacker has.
var system = map[string]func(Target) error{
	"setuid":            func(t Target) error { return child(t, "setuid") },
	"setgid":            func(t Target) error { return child(t, "setgid") },
	"setgroups":         func(t Target) error { return child(t, "setgroups") },
	"su":                func(t Target) error { return succeeds("sh", "-c", "su "+t.User+" -c true </dev/null") },
	"sudo":              func(t Target) error { return succeeds("sudo", "-n", "-u", t.User, "true") },
	"newuidmap":         func(t Target) error { return mapUID(t) },
	"cgroup.kill":       func(t Target) error { return cgroupWrite(t, "cgroup.kill", "1") },
	"cgroup.freeze":     func(t Target) error { return cgroupWrite(t, "cgroup.freeze", "0") },
	"cgroup: move into": func(t Target) error { return cgroupWrite(t, "cgroup.procs", itoa(os.Getpid())) },
	"linger":            func(t Target) error { return succeeds("loginctl", "--no-ask-password", "enable-linger", t.User) },
	"systemctl --machine": func(t Target) error {
		return succeeds("systemctl", "--user", "--machine="+t.User+"@", "is-system-running")
	},
	"crontab": func(t Target) error { return create("/var/spool/cron/crontabs", t.User) },
	"at":      func(t Target) error { return create("/var/spool/cron/atjobs", "a") },
	"wall":    func(t Target) error { return heard(t) },
	"bpf": func(t Target) error {
		a := [16]uint32{2, 4, 4, 1}
		return raw(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&a)), 64)
	},
	"bpf pins":         func(t Target) error { return open("/sys/fs/bpf/xos/vo_of_uid") },
	"fanotify":         func(t Target) error { return fanotify(t) },
	"fuse connections": func(t Target) error { return abortFUSE() },
	"user bus":         func(t Target) error { return dial("unix", fmt.Sprintf("/run/user/%d/bus", t.UID)) },
	"ssh agent":        func(t Target) error { return agents(t) },
}

func succeeds(name string, args ...string) error {
	if out, err := said(name, args...); err != nil {
		return fmt.Errorf("%s: %w: %.100q", name, err, out)
	}
	return nil
}

// child runs an attempt in a process of its own, which it may change.
func child(t Target, what string) error { return run(t, what, nil) }

// asRoot runs it as root of a new user namespace, with a mount namespace.
func asRoot(what string, t Target) error {
	return run(t, what, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}})
}

func run(t Target, what string, attr *syscall.SysProcAttr) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "inner", what, base64.StdEncoding.EncodeToString(data))
	cmd.SysProcAttr = attr
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// inner is what run runs.
func inner(what string, t Target) error {
	pid := itoa(t.PID)
	switch what {
	case "setuid":
		return syscall.Setreuid(t.UID, t.UID)
	case "setgid":
		return syscall.Setregid(t.UID, t.UID)
	case "setgroups":
		return syscall.Setgroups([]int{t.UID})
	case "kill":
		return unix.Kill(t.PID, unix.SIGURG)
	case "environ":
		return read("/proc/"+pid+"/environ", "USER=")
	case "proc":
		dir, err := os.MkdirTemp("", "p")
		if err != nil {
			return err
		}
		defer os.Remove(dir)
		if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
			return err
		}
		return lists(dir, pid)
	case "uncover":
		return uncovered("/proc", func() error { return lists("/proc", pid) })
	case "homes":
		return uncovered("/home/xos", func() error { return lists("/home/xos", t.VO) })
	case "tmp":
		return uncovered("/tmp", func() error { return lists("/tmp", t.Marker) })
	case "bus":
		return uncovered("/run/dbus", func() error { return dial("unix", bus) })
	case "bus as root":
		return dial("unix", bus)
	case "setns":
		f, err := os.Open("/proc/" + pid + "/ns/mnt")
		if err != nil {
			return err
		}
		return unix.Setns(int(f.Fd()), 0)
	case "handle":
		return byHandleOf(t)
	case "raw":
		return socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	}
	return errors.New("what?")
}

// uncovered takes away the uppermost mount of a place and looks again; it wants
// that something was taken away, and shows.
func uncovered(at string, look func() error) error {
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", at, err)
	}
	return look()
}

func mapUID(t Target) error {
	cmd := exec.Command("sleep", "5")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	return os.WriteFile(fmt.Sprintf("/proc/%d/uid_map", cmd.Process.Pid), []byte(fmt.Sprintf("0 %d 1", t.UID)), 0)
}

func cgroupWrite(t Target, file, text string) error {
	dirs := []string{fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice", t.UID)}
	jobs, _ := filepath.Glob("/sys/fs/cgroup/xos/vo-" + t.VO + "/job-*")
	err := errors.New("no cgroup of hers is to be seen")
	for _, dir := range append(dirs, jobs...) {
		if e := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); e == nil {
			return nil
		} else {
			err = e
		}
	}
	return err
}

func create(dir, name string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		f.Close()
		os.Remove(f.Name())
	}
	return err
}

// heard sends a message to everybody and to her terminal.
func heard(t Target) error {
	f, err := os.OpenFile(t.PTS, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return succeeds("wall", "-n", " ")
}

func fanotify(t Target) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_ACCESS, unix.AT_FDCWD, t.Home)
}

func abortFUSE() error {
	list, _ := filepath.Glob("/sys/fs/fuse/connections/*/waiting")
	for _, path := range list {
		if open(path) == nil {
			return nil
		}
	}
	return fmt.Errorf("none of %d can be read", len(list))
}

// agents looks for sockets of agents that sshd forwards.
func agents(t Target) error {
	dirs, _ := filepath.Glob("/tmp/ssh-*")
	for _, d := range dirs {
		if st, err := os.Stat(d); err == nil && st.Sys().(*syscall.Stat_t).Uid == uint32(t.UID) {
			return nil
		}
	}
	return errors.New("no directory of hers")
}
