package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// visible is what shows that somebody is there and what she does.
var visible = map[string]func(Target) error{
	"/proc: list":         func(t Target) error { return lists("/proc", itoa(t.PID)) },
	"/proc: PID":          func(t Target) error { return stat("/proc/" + itoa(t.PID)) },
	"/proc: TID":          func(t Target) error { return stat("/proc/" + itoa(t.TID)) },
	"/proc: PID/task/TID": func(t Target) error { return read("/proc/"+itoa(t.PID)+"/task/"+itoa(t.TID)+"/stat", "") },
	"/proc: PID/cmdline":  func(t Target) error { return read("/proc/"+itoa(t.PID)+"/cmdline", t.Marker) },
	"ps":                  func(t Target) error { return prints(t.Marker, "ps", "-e", "-ww", "-o", "pid,args") },
	"top":                 func(t Target) error { return prints("victim "+t.Marker, "top", "-b", "-n1", "-c", "-w300") },
	"pgrep":               func(t Target) error { return prints(itoa(t.PID), "pgrep", "-f", "victim "+t.Marker) },
	"pidof":               func(t Target) error { return prints(itoa(t.PID), "pidof", "prober") },
	"lsof":                func(t Target) error { return prints(t.Marker, "lsof", "-n", "-p", itoa(t.PID)) },
	"fuser":               func(t Target) error { return prints(itoa(t.PID), "fuser", "-n", "tcp", itoa(t.TCP4)) },
	"who":                 func(t Target) error { return prints(t.User, "who") },
	"w":                   func(t Target) error { return prints(t.User[:8], "w", "-h") },
	"utmp, wtmp, lastlog": func(t Target) error {
		return anyRead(t.User, "/run/utmp", "/var/log/wtmp", "/var/log/lastlog", "/var/log/wtmp.db", "/var/log/.machine/run/wtmp.db", "/var/lib/wtmpdb", "/var/lib/wtmpdb/wtmp.db", "/var/lib/lastlog")
	},
	"loginctl":              func(t Target) error { return prints(itoa(t.UID), "loginctl", "--no-pager", "list-users") },
	"/run/systemd/users":    func(t Target) error { return lists("/run/systemd/users", itoa(t.UID)) },
	"/run/systemd/sessions": func(t Target) error { return anyRead("UID="+itoa(t.UID), "/run/systemd/sessions") },
	"/run/systemd: units":   func(t Target) error { return anyRead(t.User, "/run/systemd/units", "/run/systemd/transient") },
	"system bus: sessions": func(t Target) error {
		return prints(itoa(t.UID), "busctl", "--system", "call", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "ListSessions")
	},
	"system bus: connect":      func(t Target) error { return dial("unix", bus) },
	"system bus: root's door":  func(t Target) error { return dial("unix", "/run/dbus/.machine/run/system_bus_socket") },
	"varlink: machine's":       func(t Target) error { return sockets("/run/systemd", "/run/systemd/.machine/run") },
	"varlink: Multiplexer":     func(t Target) error { return asked("/run/systemd/userdb/io.systemd.Multiplexer", t) },
	"varlink: root's door":     func(t Target) error { return asked("/run/systemd/.machine/run/userdb/io.systemd.Multiplexer", t) },
	"systemctl: units":         func(t Target) error { return prints(itoa(t.UID), "systemctl", "--no-pager", "list-units", "--all") },
	"userdbctl":                func(t Target) error { return prints(t.User, "userdbctl", "--no-pager", "user", itoa(t.UID)) },
	"journalctl":               func(t Target) error { return prints(t.User, "journalctl", "--no-pager", "-n", "2000") },
	"journal: files":           func(t Target) error { return anyRead(t.User, "/run/log/journal", "/var/log/journal") },
	"/sys/fs/cgroup: pids":     func(t Target) error { return cgroups(t, true) },
	"/sys/fs/cgroup: VOs":      func(t Target) error { return cgroups(t, false) },
	"/proc/locks":              func(t Target) error { return locks(t) },
	"/proc/key-users":          func(t Target) error { return read("/proc/key-users", itoa(t.UID)) },
	"/dev/pts: list":           func(t Target) error { return lists("/dev/pts", filepath.Base(t.PTS)) },
	"mountinfo: homes":         func(t Target) error { return read("/proc/self/mountinfo", t.Home) },
	"mountinfo: runtime":       func(t Target) error { return read("/proc/self/mountinfo", "/run/user/"+itoa(t.UID)) },
	"/run/user/UID":            func(t Target) error { return stat("/run/user/" + itoa(t.UID)) },
	"kill(pid, 0): exists":     func(t Target) error { return existence(unix.Kill(t.PID, 0)) },
	"pidfd_open":               func(t Target) error { fd, err := unix.PidfdOpen(t.PID, 0); unix.Close(fd); return err },
	"getpriority":              func(t Target) error { _, err := unix.Getpriority(unix.PRIO_PROCESS, t.PID); return err },
	"getsid":                   func(t Target) error { _, err := unix.Getsid(t.PID); return err },
	"sched_getaffinity":        func(t Target) error { var s unix.CPUSet; return unix.SchedGetaffinity(t.PID, &s) },
	"clock of a process":       func(t Target) error { var ts unix.Timespec; return unix.ClockGettime(int32(^t.PID<<3|2), &ts) },
	"xos session list":         func(t Target) error { return prints(t.User, "xos", "session", "list") },
	"/run/xos: names":          func(t Target) error { return walked("/run/xos", t.VO) },
	"/run/systemd: whole tree": func(t Target) error { return walked("/run/systemd", itoa(t.UID), "alice", t.VO) },
}

func stat(path string) error { _, err := os.Stat(path); return err }

// lists wants a name in a directory.
func lists(dir, name string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == name {
			return nil
		}
	}
	return fmt.Errorf("%s has no %s", dir, name)
}

// read wants a text in a file.
func read(path, text string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 8<<20)) // lastlog has a size for every uid
	if err != nil {
		return err
	}
	if !bytes.Contains(data, []byte(text)) {
		return fmt.Errorf("%s does not have it", path)
	}
	return nil
}

// prints wants a text in what a program prints.
func prints(text, name string, args ...string) error {
	out, err := said(name, args...)
	if bytes.Contains(out, []byte(text)) {
		return nil
	}
	return fmt.Errorf("%s does not show it (%v): %.120q", name, err, out)
}

// anyRead wants a text in a file's name or content, somewhere below the roots.
func anyRead(text string, roots ...string) error {
	found := false
	for _, root := range roots {
		if read(root, text) == nil { // a link, perhaps
			return nil
		}
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || found {
				return nil
			}
			if strings.Contains(d.Name(), text) {
				found = true
			}
			if d.Type().IsRegular() && read(path, text) == nil {
				found = true
			}
			return nil
		})
	}
	if !found {
		return fmt.Errorf("%v do not have it", roots)
	}
	return nil
}

// walked wants one of the words in a name below root.
func walked(root string, words ...string) error {
	var found string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		for _, w := range words {
			if strings.Contains(filepath.Base(path), w) {
				found = path
			}
		}
		if link, err := os.Readlink(path); err == nil && strings.Contains(link, words[0]) {
			found = path
		}
		return nil
	})
	if found == "" {
		return fmt.Errorf("no name below %s has it", root)
	}
	fmt.Fprintln(os.Stderr, "found", found)
	return nil
}

// cgroups looks for the victim's pid, or for its VO's or user's name.
func cgroups(t Target, pids bool) error {
	found := false
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || found {
			return nil
		}
		if pids && d.Name() == "cgroup.procs" && read(path, itoa(t.PID)+"\n") == nil {
			found = true
		}
		if !pids && (d.Name() == "vo-"+t.VO || strings.Contains(d.Name(), "-"+t.VO+"-")) {
			found = true
		}
		return nil
	})
	if !found {
		return fmt.Errorf("no cgroup shows it")
	}
	return nil
}

// locks looks for the lock on the victim's file in /tmp by its pid.
func locks(t Target) error { return read("/proc/locks", " "+itoa(t.PID)+" ") }

func existence(err error) error {
	if err == unix.EPERM {
		return nil
	}
	return err
}
