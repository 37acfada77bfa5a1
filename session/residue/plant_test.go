package residue_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/test/need"
)

// plantAll leaves one thing of each kind, each of an id of its own.
func (g *ground) plantAll() (all []planted) {
	g.Helper()
	add := func(name string, kind residue.Kind, at, why string, f func(id uint32, name string)) {
		id, account := g.subject()
		f(id, account)
		at = strings.NewReplacer("ID", decimal(id), "NAME", account).Replace(at)
		all = append(all, planted{name, id, kind, at, why})
	}
	g.plantProcesses(add)
	g.plantIPC(add)
	g.plantFiles(add)
	g.plantRecords(add)
	g.plantSubordinate(add)
	return all
}

// plantSubordinate leaves what containers do: of an id that is subordinate to
// the one that is looked for.
func (g *ground) plantSubordinate(add adder) {
	with := func(name string, kind residue.Kind, at, why string, f func(sub uint32)) {
		add("subordinate: "+name, kind, at, why+" (subordinate id", func(id uint32, _ string) { f(g.subordinate(id)) })
	}
	with("a process", residue.Process, "process", "real uid", func(sub uint32) { g.leave(as(sub), "wait") })
	with("a group", residue.Process, "process", "supplementary group", func(sub uint32) {
		g.leave(&syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{5, sub}}}, "wait")
	})
	with("a file", residue.File, "contained", "owner", func(sub uint32) { g.file(g.path("contained"), "x", sub, 0, 0o600) })
	with("a file's group", residue.File, "grouped", "group", func(sub uint32) { g.file(g.path("grouped"), "x", 0, sub, 0o600) })
	with("an open file", residue.OpenFile, "memfd:", "owner", func(sub uint32) {
		fd, err := unix.MemfdCreate("left", unix.MFD_CLOEXEC)
		g.must(err)
		g.Cleanup(func() { unix.Close(fd) })
		g.must(unix.Fchown(fd, int(sub), 0))
	})
	with("shared memory", residue.SysV, "shm", "uid", func(sub uint32) {
		cmd := exec.Command(need.Command(g, "ipcmk"), "-M4096")
		cmd.SysProcAttr = as(sub)
		out, err := cmd.Output()
		g.must(err)
		n := string(out[bytes.LastIndexByte(out, ' ')+1 : len(out)-1])
		g.Cleanup(func() { exec.Command("ipcrm", "-m", n).Run() })
	})
	add("subordinate: a mapping to some", residue.Namespace, "user:[", "uid_map (subordinate ids)", func(id uint32, _ string) {
		m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 7, HostID: int(g.subordinate(id)), Size: 3}}
		g.leave(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m[:1]}, "wait")
	})
}

type adder func(name string, kind residue.Kind, at, why string, f func(id uint32, name string))

func (g *ground) plantProcesses(add adder) {
	for _, what := range []string{"real", "effective", "saved", "file system"} {
		add("a process with only its "+what+" uid", residue.Process, "process", what+" uid", func(id uint32, _ string) { g.leave(nil, "ids", what, decimal(id)) })
	}
	add("a thread", residue.Process, "process", "file system uid", func(id uint32, _ string) { g.leave(nil, "thread", decimal(id)) })
	add("a gid", residue.Process, "process", "real gid", func(id uint32, _ string) {
		g.leave(&syscall.SysProcAttr{Credential: &syscall.Credential{Gid: id}}, "wait")
	})
	add("a supplementary group", residue.Process, "process", "supplementary group", func(id uint32, _ string) {
		g.leave(&syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{5, id}}}, "wait")
	})
	add("a process in another pid namespace", residue.Process, "process", "real uid", func(id uint32, _ string) {
		a := as(id)
		a.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS
		g.leave(a, "wait")
	})
	add("a user namespace", residue.Namespace, "user:[", "owner", func(id uint32, _ string) { g.leave(as(id), "userns") })
	add("a mapping to it", residue.Namespace, "user:[", "uid_map", func(id uint32, _ string) {
		m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 7, HostID: int(id), Size: 1}}
		g.leave(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m[:1]}, "wait")
	})
	add("a lock", residue.Lock, "FLOCK", "held", func(id uint32, _ string) {
		g.leave(as(id), "lock", g.file(g.path("locked-"+decimal(id)), "", 0, 0, 0o666))
	})
	add("a deleted file that root holds", residue.OpenFile, "deleted", "owner", func(id uint32, _ string) {
		path := g.file(g.path("deleted"), "x", id, 0, 0o600)
		f, err := os.Open(path)
		g.must(err)
		g.Cleanup(func() { f.Close() })
		g.must(os.Remove(path))
	})
	add("a memfd of a group", residue.OpenFile, "memfd:", "group", func(id uint32, _ string) {
		fd, err := unix.MemfdCreate("left", unix.MFD_CLOEXEC)
		g.must(err)
		g.Cleanup(func() { unix.Close(fd) })
		g.must(unix.Fchown(fd, 0, int(id)))
	})
}

func (g *ground) plantIPC(add adder) {
	for table, flag := range map[string]string{"shm": "-M4096", "sem": "-S1", "msg": "-Q"} {
		add("System V "+table, residue.SysV, table, "uid", func(id uint32, _ string) {
			cmd := exec.Command(need.Command(g, "ipcmk"), flag)
			cmd.SysProcAttr = as(id)
			out, err := cmd.Output()
			g.must(err)
			n := string(out[bytes.LastIndexByte(out, ' ')+1 : len(out)-1])
			g.Cleanup(func() {
				exec.Command("ipcrm", "-"+map[string]string{"shm": "m", "sem": "s", "msg": "q"}[table], n).Run()
			})
		})
	}
	add("shared memory in another IPC namespace", residue.SysV, "shm", "uid", func(id uint32, _ string) {
		a := as(id)
		a.Cloneflags = unix.CLONE_NEWIPC
		g.leave(a, "shm") // its process is found, too: not what is asked
	})
	add("a POSIX message queue", residue.MQueue, "/left-ID", "owner", func(id uint32, _ string) {
		path := "left-" + decimal(id)
		cmd := exec.Command(g.bin, "leave", "mqueue", path)
		cmd.SysProcAttr = as(id)
		out, err := cmd.CombinedOutput()
		if err != nil {
			g.Fatalf("%v: %s", err, out)
		}
		g.Cleanup(func() {
			name, _ := unix.BytePtrFromString(path)
			unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
		})
	})
	add("a keyring", residue.Keyring, "key-users", "", func(id uint32, _ string) { g.plantKeyring(id) })
}

// plantKeyring has a process of the id make its keyrings, and end.
func (g *ground) plantKeyring(id uint32) {
	g.Helper()
	cmd := exec.Command(g.bin, "leave", "keyring")
	cmd.SysProcAttr = as(id)
	if out, err := cmd.CombinedOutput(); err != nil {
		g.Fatalf("%v: %s", err, out)
	}
	g.Cleanup(func() { residue.Clear(id) })
}

func (g *ground) plantFiles(add adder) {
	add("a setuid file", residue.File, g.path("setuid"), "owner, setuid", func(id uint32, _ string) { g.file(g.path("setuid"), "x", id, 0, 0o4755) })
	add("a setgid file", residue.File, g.path("setgid"), "group, setgid", func(id uint32, _ string) { g.file(g.path("setgid"), "x", 0, id, 0o2755) })
	add("a symbolic link", residue.File, g.path("link"), "owner", func(id uint32, _ string) {
		g.must(os.Symlink("/", g.path("link")))
		g.must(os.Lchown(g.path("link"), int(id), 0))
	})
	for what, tag := range map[string]uint16{"user": 2, "group": 8} {
		add("an ACL entry of a "+what, residue.File, "acl-"+what, "ACL entry of a "+what, func(id uint32, _ string) {
			g.must(unix.Setxattr(g.file(g.path("acl-"+what), "", 0, 0, 0o644), "system.posix_acl_access", acl(tag, id), 0))
		})
	}
	add("a default ACL", residue.File, g.path("defaults"), "ACL entry", func(id uint32, _ string) {
		g.mkdir(g.path("defaults"))
		g.must(unix.Setxattr(g.path("defaults"), "system.posix_acl_default", acl(2, id), 0))
	})
	add("a capability for its namespaces", residue.File, "capable", "capabilities", func(id uint32, _ string) {
		c := append(binary.LittleEndian.AppendUint32(nil, 0x03000001), make([]byte, 16)...)
		c[4] = 1
		g.must(unix.Setxattr(g.file(g.path("capable"), "", 0, 0, 0o755), "security.capability", binary.LittleEndian.AppendUint32(c, id), 0))
	})
	add("a file in /dev/shm", residue.File, "/dev/shm/left-ID", "owner", func(id uint32, _ string) { g.file("/dev/shm/left-"+decimal(id), "x", id, id, 0o600) })
	add("a file hidden below a mount", residue.File, "under/hidden", "owner", func(id uint32, _ string) {
		g.file(g.path("under/hidden"), "x", id, 0, 0o600)
		g.must(unix.Mount("none", g.path("under"), "tmpfs", 0, "size=4k"))
		g.Cleanup(func() { unix.Unmount(g.path("under"), unix.MNT_DETACH) })
	})
	add("a file in another mount namespace", residue.File, "/left-ID", "owner", func(id uint32, _ string) {
		g.leave(&syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, "tmpfs", g.path("homes"), decimal(id))
	})
}

func (g *ground) plantRecords(add adder) {
	add("a crontab by owner", residue.Cron, "crontabs/", "owner", func(id uint32, _ string) {
		g.file("/var/spool/cron/crontabs/left-"+decimal(id)[6:], "", id, 0, 0o600)
	})
	add("a crontab by name", residue.Cron, "crontabs/NAME", "named", func(_ uint32, n string) { g.file("/var/spool/cron/crontabs/"+n, "", 0, 0, 0o600) })
	add("an at job by its content", residue.At, "atjobs/a", "mentions", func(id uint32, _ string) {
		g.file(fmt.Sprintf("/var/spool/cron/atjobs/a%05x01c2f3e", id&0xfffff), "#!/bin/sh\n# atrun uid="+decimal(id)+" gid=1\n", 0, 0, 0o700)
	})
	add("a linger file", residue.Systemd, "linger/NAME", "named", func(_ uint32, n string) { g.file("/var/lib/systemd/linger/"+n, "", 0, 0, 0o644) })
	add("a slice's drop-in", residue.Systemd, "user-ID.slice.d", "named", func(id uint32, _ string) { g.mkdir("/run/systemd/system/user-" + decimal(id) + ".slice.d") })
	add("a line in sudoers", residue.Etc, "sudoers.d", "mentions", func(id uint32, _ string) { // with a dot: sudo itself does not read it
		g.file("/etc/sudoers.d/xos.test."+decimal(id)[6:], "#"+decimal(id)+" ALL=(root) /bin/false\n", 0, 0, 0o440)
	})
	add("a last login", residue.Login, "lastlog", "last login", func(id uint32, _ string) {
		_, err := os.Stat("/var/log/lastlog")
		f, oerr := os.OpenFile("/var/log/lastlog", os.O_RDWR|os.O_CREATE, 0o664)
		g.must(oerr)
		defer f.Close()
		size, _ := f.Seek(0, io.SeekEnd)
		g.Cleanup(func() {
			g.must(residue.Clear(id))
			if err != nil {
				os.Remove("/var/log/lastlog")
			} else {
				os.Truncate("/var/log/lastlog", size)
			}
		})
		_, werr := f.WriteAt([]byte{1, 2, 3, 4, 'p', 't', 's'}, int64(id)*292)
		g.must(werr)
	})
	add("a login on record", residue.Login, "utmp", "logged in", func(_ uint32, n string) {
		_, err := os.Stat("/run/utmp")
		f, oerr := os.OpenFile("/run/utmp", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o664)
		g.must(oerr)
		defer f.Close()
		size, _ := f.Seek(0, io.SeekEnd)
		g.Cleanup(func() {
			if err != nil {
				os.Remove("/run/utmp")
			} else {
				os.Truncate("/run/utmp", size)
			}
		})
		record := make([]byte, 384)
		record[0] = 7
		binary.LittleEndian.PutUint32(record[4:], uint32(os.Getpid()))
		copy(record[44:76], n)
		_, werr := f.Write(record)
		g.must(werr)
	})
	add("a control group", residue.Cgroup, "left-", "owner", func(id uint32, _ string) {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var st unix.Statfs_t
			if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
				path := filepath.Join(root, fmt.Sprintf("left-%d", os.Getpid()))
				g.mkdir(path)
				g.must(os.Chown(path, int(id), 0))
				return
			}
		}
		need.Missing(g, "cgroup version 2", "none is mounted")
	})
	add("a mounted home", residue.Mount, g.path("homes/vo"), "home", func(_ uint32, n string) {
		user, _, _ := strings.Cut(n, "@")
		at := g.path("homes/vo/" + user)
		g.mkdir(at)
		g.must(unix.Mount("none", at, "tmpfs", 0, "size=4k"))
		g.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	})
	add("a mount of its own", residue.Mount, g.path("mine"), "option", func(id uint32, _ string) {
		g.mkdir(g.path("mine"))
		g.must(unix.Mount("none", g.path("mine"), "tmpfs", 0, "size=4k,uid="+decimal(id)))
		g.Cleanup(func() { unix.Unmount(g.path("mine"), unix.MNT_DETACH) })
	})
	add("a credential", residue.Own, "cred/ID", "named", func(id uint32, _ string) { g.mkdir(g.path("run/cred/" + decimal(id))) })
	add("a session", residue.Own, "sessions/s-1.json", "mentions", func(id uint32, _ string) {
		g.file(g.path("run/sessions/s-1.json"), `{"Mapping":{"UID":`+decimal(id)+`}}`, 0, 0, 0o600)
	})
}

// act is what the actors do.
func act(what string, args []string) int {
	runtime.LockOSThread()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, what, err)
			os.Exit(1)
		}
	}
	id := func(s string) uintptr { n, err := strconv.ParseUint(s, 10, 32); fail(err); return uintptr(n) }
	call := func(nr, a, b, c uintptr) uintptr {
		r, _, errno := unix.RawSyscall(nr, a, b, c)
		if errno != 0 {
			fail(errno)
		}
		return r
	}
	keep := ^uintptr(0)
	switch what {
	case "ids":
		n := id(args[1])
		switch args[0] {
		case "real":
			call(unix.SYS_SETRESUID, n, 0, 0)
		case "effective":
			call(unix.SYS_SETRESUID, 0, n, 0)
			call(unix.SYS_SETFSUID, 0, 0, 0)
		case "saved":
			call(unix.SYS_SETRESUID, keep, keep, n)
		case "file system":
			call(unix.SYS_SETFSUID, n, 0, 0)
		}
	case "thread":
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			call(unix.SYS_SETFSUID, id(args[0]), 0, 0)
			close(done)
			select {}
		}()
		<-done
	case "userns":
		cmd := exec.Command("/proc/self/exe", "leave", "wait")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		cmd.Stdin = os.Stdin
		out, err := cmd.StdoutPipe()
		fail(err)
		fail(cmd.Start())
		out.Read(make([]byte, 8))
	case "lock":
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		fail(err)
		fail(unix.Flock(int(f.Fd()), unix.LOCK_EX))
		defer f.Close()
	case "shm":
		_, err := unix.SysvShmGet(0, 4096, unix.IPC_CREAT|0o600)
		fail(err)
	case "mqueue":
		name, err := unix.BytePtrFromString(args[0])
		fail(err)
		_, _, errno := unix.RawSyscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
		if errno != 0 {
			fail(errno)
		}
		return 0
	case "keyring":
		_, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_USER_SESSION_KEYRING, 1, 0, 0)
		fail(err)
		return 0
	case "tmpfs":
		fail(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		fail(unix.Mount("none", args[0], "tmpfs", 0, "size=64k"))
		path := filepath.Join(args[0], "left-"+args[1])
		fail(os.WriteFile(path, nil, 0o600))
		fail(os.Chown(path, int(id(args[1])), 0))
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}
