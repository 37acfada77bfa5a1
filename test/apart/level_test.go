package apart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/story"
)

// atA is what level A answers where it differs from level C: who gets through
// to a session, and to a job. It is the guard that does it.
var atA = map[string]struct{ session, job, why string }{
	"abstract: datagram":   {"ABbGO", "ABbG", localToo},
	"abstract: packet":     {"ABbGO", "ABbG", localToo},
	"abstract: sendto":     {"ABbGO", "ABbG", localToo},
	"abstract: stream":     {"ABbGO", "ABbG", localToo},
	"getsid":               {"ABGO", "ABG", localToo},
	"sched_getaffinity":    {"ABGO", "ABG", localToo},
	"/run/user/UID":        {"ABGO", "ABG", localToo},
	"abstract: SCM_RIGHTS": {"ABbGO", "ABbG", localToo},
	"netlink: to another":  {"O", "", unjudged},
	"/proc/net/netlink":    {"GO", "G", unlisted},
	"/proc/net/tcp":        {"GO", "G", unlisted},
	"/proc/net/unix":       {"GO", "G", unlisted},
	"ss: TCP":              {"GO", "G", unlisted},
	"ss: unix":             {"GO", "G", unlisted},
	"ss: processes":        {"", "", unlisted},
	"fuser":                {"", "", unlisted},
}

const (
	localToo = "a local user has no VO: only what has one is judged"
	unlisted = "the kernel lists all sockets or none: to local users only, unless the site permits it"
	unjudged = "refused to whoever has a VO: nothing judges where it goes"
)

// expected is the checklist at a level.
func expected(level string) []line {
	list := append([]line(nil), checklist...)
	for i, l := range list {
		if of, ok := ofKernel(l.name, level); ok {
			list[i] = of
		}
		if a, ok := atA[l.name]; ok && level == "A" {
			list[i] = line{l.name, a.session, a.job, byGuard, a.why}
			if a.session+a.job == "" {
				list[i].by = byNobody // others see nothing of it without the guard either
			}
		}
	}
	return list
}

// ofKernel is a line where it depends on the kernel, which this process shares with
// node1.
func ofKernel(name, level string) (line, bool) {
	atLevel := func(session, job, why string) (line, bool) {
		if level == "A" {
			return line{name, session, job, byGuard, unjudged}, true
		}
		return line{name, "ABbCcGO", "ABbCcG", isOpen, why}, true
	}
	switch {
	case name == "perf_event_open" && needsRootForPerf():
		return line{name, "", "", byNobody, "this kernel lets root only"}, true
	case name == "fanotify: home" && !since(6, 8):
		return line{name, "", "", byNobody, "this kernel marks nothing of FUSE"}, true
	case name == "netlink: process events" && here && since(6, 6) && level == "A":
		return line{name, "GO", "G", byGuard, localToo}, true
	case name == "netlink: process events" && here && since(6, 6):
		return line{name, "ABCGO", "ABCG", isOpen, "the kernel tells every uid which processes begin, end and are called what; needs level A"}, true
	case name == "vsock" && ownVsock() == nil:
		return atLevel("O", "", "the network's programs are not asked about it; needs level A")
	case name == "SMC: by TCP" && makes(afSMC):
		return atLevel("O", "", "the TCP socket below one of SMC has no label; needs level A")
	}
	return line{}, false
}

const afSMC = 43 // AF_SMC, which package unix has not

func makes(family int) bool {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// ownVsock has this machine connect to itself, once.
var ownVsock = sync.OnceValue(func() error {
	server, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	if err := errors.Join(unix.Bind(server, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}), unix.Listen(server, 1)); err != nil {
		return err
	}
	at, err := unix.Getsockname(server)
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := unix.Connect(client, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: at.(*unix.SockaddrVM).Port}); err != nil && err != unix.EINPROGRESS {
		return err
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(client), Events: unix.POLLOUT}}, 3000); n == 1 {
			if e, err := unix.GetsockoptInt(client, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
				return errors.Join(err, unix.Errno(e))
			}
			return nil
		}
	}
	return unix.ETIMEDOUT
})

// since reports whether the kernel is of a release or later.
func since(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return n == 2 && (a > major || a == major && b >= minor)
}

// needsRootForPerf reports whether the kernel, as Debian's does, keeps
// perf_event_open from users altogether.
func needsRootForPerf() bool {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	level, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && err2 == nil && level > 2
}

// levelOf1 is the level that node1 says it has, which must be a known one.
func levelOf1(ctx context.Context, t *testing.T) string {
	t.Helper()
	var status struct{ Level string }
	out := on1(ctx, t, "root", "xos guard status --json")
	if err := json.Unmarshal([]byte(out), &status); err != nil || (status.Level != "C" && status.Level != "A") {
		t.Fatalf("the level is %q (%v): %s", status.Level, err, out)
	}
	return status.Level
}

// TestRootVODemandsALevel: jobs of a VO whose policy wants a level run only
// where the machine has it. That of the other level is demanded first: when it
// is refused, the policy has arrived.
func TestRootVODemandsALevel(t *testing.T) {
	ctx := needGrid(t)
	level, other := levelOf1(ctx, t), "A"
	if level == "A" {
		other = "C"
	}
	set := func(policy string) {
		t.Helper()
		out, status, err := story.Run(ctx, node("core"), "root", "printf '%s' '"+policy+"' | xos vo set-policy chemistry -")
		if err != nil || status != 0 {
			t.Fatalf("status %d (%v): %s", status, err, out)
		}
	}
	job := func(account string) (string, int) {
		user, _, _ := strings.Cut(account, "@")
		out, status, err := story.Run(ctx, node("client"), user, ssh(account, "", "xsub --node node1 -- echo it ran"))
		if err != nil {
			t.Fatal(err)
		}
		return out, status
	}
	until := func(ran bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; {
			out, status := job("carol@chemistry")
			if ran && status == 0 && strings.Contains(out, "it ran") || !ran && status == 77 && strings.Contains(out, "VO chemistry forbids run") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("carol's job should run: %v, but: status %d\n%s", ran, status, out)
			}
		}
	}
	demand := func(level string) string {
		return `permit (principal, action, resource); forbid (principal, action == Action::"run", resource) unless { resource.isolation == "` + level + `" };`
	}
	defer until(true)
	defer set("")
	set(demand(other))
	until(false)
	if out, status := job("alice@physics"); status != 0 {
		t.Errorf("alice's VO demands nothing: status %d\n%s", status, out)
	}
	set(demand(level))
	until(true)
}
