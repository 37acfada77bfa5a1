package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ipc is what processes share by name or number.
var ipc = map[string]func(Target) error{
	"SysV: list":  func(t Target) error { return read("/proc/sysvipc/shm", itoa(int(crc(t.Marker)))) },
	"ipcs":        func(t Target) error { return prints(fmt.Sprintf("0x%08x", crc(t.Marker)), "ipcs", "-a") },
	"SysV: shmat": func(t Target) error { return shm(t) },
	"SysV: semop": func(t Target) error {
		return byKey(t, unix.SYS_SEMGET, 1, func(id uintptr) error {
			b := [3]int16{0, 1, 0}
			return raw(unix.SYS_SEMOP, id, uintptr(unsafe.Pointer(&b)), 1)
		})
	},
	"SysV: msgsnd": func(t Target) error {
		return byKey(t, unix.SYS_MSGGET, 0, func(id uintptr) error {
			m := [2]int64{1, 0}
			return raw(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(&m)), 8, unix.IPC_NOWAIT)
		})
	},
	"POSIX queue":        func(t Target) error { fd, err := mqOpen(t.Marker, unix.O_RDWR); unix.Close(fd); return err },
	"/dev/mqueue: list":  func(t Target) error { return lists("/dev/mqueue", t.Marker) },
	"/dev/shm: list":     func(t Target) error { return lists("/dev/shm", t.Marker) },
	"/dev/shm: open":     func(t Target) error { return read("/dev/shm/"+t.Marker, t.Marker) },
	"/tmp: list":         func(t Target) error { return lists("/tmp", t.Marker) },
	"/tmp: read":         func(t Target) error { return read("/tmp/"+t.Marker, t.Marker) },
	"/var/tmp: read":     func(t Target) error { return read("/var/tmp/"+t.Marker, t.Marker) },
	"/tmp: flock":        func(t Target) error { return flock("/tmp/" + t.Marker) },
	"/tmp: inotify":      func(t Target) error { return inotify("/tmp/" + t.Marker) },
	"/tmp: socket":       func(t Target) error { return talk("unix", "/tmp/"+t.Marker+".sock") },
	"home: list":         func(t Target) error { return lists(filepath.Dir(t.Home), filepath.Base(t.Home)) },
	"home: read":         func(t Target) error { return read(t.Home+"/"+t.Marker, t.Marker) },
	"home: inotify":      func(t Target) error { return inotify(t.Home) },
	"/home/xos: list":    func(t Target) error { return lists("/home/xos", t.VO) },
	"abstract: stream":   func(t Target) error { return talk("unix", "@"+t.Marker+"unix") },
	"abstract: packet":   func(t Target) error { return talk("unixpacket", "@"+t.Marker+"unixpacket") },
	"abstract: datagram": func(t Target) error { return dial("unixgram", "@"+t.Marker+"unixgram") },
	"abstract: sendto":   func(t Target) error { return sendTo("@" + t.Marker + "unixgram") },
	"key: read": func(t Target) error {
		_, err := unix.KeyctlBuffer(unix.KEYCTL_READ, t.Key, make([]byte, 64), 0)
		return err
	},
	"key: describe":   func(t Target) error { _, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, t.Key); return err },
	"/proc/keys":      func(t Target) error { return read("/proc/keys", t.Marker) },
	"pty: open":       func(t Target) error { return pty(t, false) },
	"pty: TIOCSTI":    func(t Target) error { return pty(t, true) },
	"tty of /proc/fd": func(t Target) error { return open(fmt.Sprintf("/proc/%d/fd/0", t.PID)) },
}

// byKey finds what the victim made by its key: numbers mean another object in
// another namespace.
func byKey(t Target, get, size uintptr, use func(id uintptr) error) error {
	id, _, e := unix.Syscall(get, uintptr(crc(t.Marker)), size, 0)
	if e != 0 {
		return e
	}
	return use(id)
}

func shm(t Target) error {
	return byKey(t, unix.SYS_SHMGET, 1, func(id uintptr) error {
		at, _, e := unix.Syscall(unix.SYS_SHMAT, id, 0, 0)
		if e != 0 {
			return e
		}
		return raw(unix.SYS_SHMDT, at)
	})
}

func flock(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
}

func inotify(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
	return err
}

// pty opens the victim's terminal, and may type into it.
func pty(t Target, typing bool) error {
	if t.PTS == "" {
		return fmt.Errorf("the victim has no terminal")
	}
	fd, err := unix.Open(t.PTS, unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil || !typing {
		unix.Close(fd)
		return err
	}
	defer unix.Close(fd)
	c := byte(' ')
	return raw(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
}

// network is what is reached by an address of this machine.
var network = map[string]func(Target) error{
	"TCP: 127.0.0.1":     func(t Target) error { return talk("tcp4", "127.0.0.1:"+itoa(t.TCP4)) },
	"TCP: own address":   func(t Target) error { return talk("tcp4", net.JoinHostPort(own(), itoa(t.TCP4))) },
	"TCP: 0.0.0.0":       func(t Target) error { return talk("tcp4", "0.0.0.0:"+itoa(t.TCP4)) },
	"TCP: ::1":           func(t Target) error { return talk("tcp6", "[::1]:"+itoa(t.TCP6)) },
	"TCP: mapped":        func(t Target) error { return talk("tcp", "[::ffff:127.0.0.1]:"+itoa(t.TCP4)) },
	"UDP: connect":       func(t Target) error { return talk("udp4", "127.0.0.1:"+itoa(t.UDP)) },
	"UDP: sendto":        func(t Target) error { return sendUDP(t) },
	"ss: TCP":            func(t Target) error { return prints(":"+itoa(t.TCP4), "ss", "-tlnH") },
	"ss: processes":      func(t Target) error { return prints("pid="+itoa(t.PID)+",", "ss", "-tlnpH") },
	"ss: unix":           func(t Target) error { return prints(t.Marker, "ss", "-xlnH") },
	"/proc/net/tcp":      func(t Target) error { return read("/proc/net/tcp", fmt.Sprintf(":%04X ", t.TCP4)) },
	"/proc/net/unix":     func(t Target) error { return read("/proc/net/unix", t.Marker) },
	"raw socket":         func(t Target) error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP) },
	"packet socket":      func(t Target) error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"Multipath TCP":      func(t Target) error { return mptcp(t) },
	"bind to its port":   func(t Target) error { return takePort(t) },
	"userns: raw socket": func(t Target) error { return asRoot("raw", t) },
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 3*time.Second)
	if err == nil {
		_, err = c.Write([]byte("x"))
		c.Close()
	}
	return err
}

// talk wants back what it sends.
func talk(network, address string) error {
	c, err := net.DialTimeout(network, address, 3*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func own() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "127.0.0.2"
}

func sendTo(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: name})
}

func sendUDP(t Target) error {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: t.UDP}); err != nil {
		return err
	}
	_, _, err = c.ReadFrom(make([]byte, 8))
	return err
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	unix.Close(fd)
	return err
}

func mptcp(t Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: t.TCP4, Addr: [4]byte{127, 0, 0, 1}})
}

// takePort shares the victim's port to get some of what is meant for her.
func takePort(t Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: t.TCP4, Addr: [4]byte{127, 0, 0, 1}})
}

// names is who one can learn is there.
var names = map[string]func(Target) error{
	"getent passwd NAME":    func(t Target) error { return prints(t.User+":", "getent", "passwd", t.User) },
	"getent passwd UID":     func(t Target) error { return prints(t.User+":", "getent", "passwd", itoa(t.UID)) },
	"getent group VO":       func(t Target) error { return prints(t.VO+":", "getent", "group", t.VO) },
	"getent passwd":         func(t Target) error { return prints("@", "getent", "passwd") },
	"getent initgroups":     func(t Target) error { return gids(t) },
	"id NAME":               func(t Target) error { return succeeds("id", t.User) },
	"nss snapshots: list":   func(t Target) error { return lists("/run/xos/nss", "vo-"+t.VO+".snap") },
	"nss snapshots: read":   func(t Target) error { return open("/run/xos/nss/vo-" + t.VO + ".snap") },
	"credential: read":      func(t Target) error { return open(fmt.Sprintf("/run/xos/cred/%d/key.pem", t.UID)) },
	"/run/xos/mounts: read": func(t Target) error { return anyRead("volume", "/run/xos/mounts") },
	"/run/xos/jobs: read":   func(t Target) error { return anyRead(t.User, "/run/xos/jobs") },
	"core's socket":         func(t Target) error { return dial("unix", "/run/xos/core.sock") },
	"xps shows her jobs":    func(t Target) error { return prints(t.Marker, "xos", "ps") },
}

func gids(t Target) error {
	out, _ := exec.Command("getent", "initgroups", t.User).Output()
	if len(strings.Fields(string(out))) > 1 {
		return nil
	}
	return fmt.Errorf("no groups: %.60q", out)
}
