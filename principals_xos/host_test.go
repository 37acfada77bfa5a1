package principals_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// host is a room with the program and a system log.
type host struct {
	*wiretest.Room
	log *wiretest.Log
}

func newHost(t *testing.T) host {
	t.Helper()
	r := wiretest.NewRoom(t, "files")
	r.Build(t, "build.sh", "xos-principals")
	return host{r, r.Log(t)}
}

const certType = "ssh-ed25519-cert-v01@openssh.com"

// result is all that sshd and an administrator see of a run.
type result struct {
	Out, Err string
	Exit     int
	Log      []string
}

// principals runs the program as sshd does, as a user without rights.
func (h host) principals(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	c := h.As(54321, nil, append([]string{"/run/lib/xos-principals"}, args...)...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
	}
	r := result{Out: out.String(), Err: errs.String(), Exit: c.ProcessState.ExitCode()}
	for _, line := range h.log.Entries(t) {
		// <priority>time tag[pid]: text
		priority, _, _ := strings.Cut(line, ">")
		_, text, _ := strings.Cut(line, "]: ")
		r.Log = append(r.Log, priority+"> "+strings.TrimSuffix(text, "\n"))
	}
	return r
}

func TestRootPrincipals(t *testing.T) {
	h := newHost(t)
	const refusal, failure = "<38> ", "<35> " // auth.info, auth.err
	for _, c := range []struct {
		name, user, key string
		principal       string
		err             error
		want            result
	}{
		{"let in", "alice@physics", "AAAA", "alice@physics", nil, result{Out: "alice@physics\n"}},
		{"refused", "alice@physics", "AAAA", "", xos.Errorf(xos.Permission, "alice is banned").WithHint("xos explain"),
			result{Exit: 1, Log: []string{refusal + `"alice@physics" refused: alice is banned (xos explain)`}}},
		{"run out", "alice@physics", "AAAA", "", xos.Errorf(xos.Expired, "run out"),
			result{Exit: 1, Log: []string{refusal + `"alice@physics" refused: run out`}}},
		{"not now", "alice@physics", "AAAA", "", xos.Errorf(xos.Unavailable, "no trust yet"),
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: no trust yet`}}},
		{"failed", "alice@physics", "AAAA", "", xos.Errorf(xos.Internal, "secret"),
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: the session service of this machine has failed; its log says why`}}},
		{"forged line", "alice@physics", "AAAA", "", xos.Errorf(xos.Permission, "no\nNov 26 sshd: let in"),
			result{Exit: 1, Log: []string{refusal + `"alice@physics" refused: no Nov 26 sshd: let in`}}},

		// One principal, the user's own name: anything else would let in by
		// somebody else's certificate.
		{"none", "alice@physics", "AAAA", "", nil,
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: the session service gave the principal ""`}}},
		{"somebody else", "alice@physics", "AAAA", "bob@physics", nil,
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: the session service gave the principal "bob@physics"`}}},
		{"two", "alice@physics", "AAAA", "alice@physics\nroot", nil,
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: the session service gave the principal "alice@physics\nroot"`}}},
		{"options", "alice@physics", "AAAA", `command="id" alice@physics`, nil,
			result{Exit: 1, Log: []string{failure + `"alice@physics" refused: the session service gave the principal "command=\"id\" alice@physics"`}}},

		// Names that are not the grid's.
		{"local", "root", "AAAA", "root", nil, result{Exit: 1, Log: []string{refusal + `"root" refused: no such name`}}},
		{"reserved", "root@physics", "AAAA", "root@physics", nil, result{Exit: 1, Log: []string{refusal + `"root@physics" refused: no such name`}}},
		{"empty", "", "AAAA", "", nil, result{Exit: 1, Log: []string{refusal + `"" refused: no such name`}}},
		{"terminal", "\x1b[2J@physics\n", "AAAA", "", nil, result{Exit: 1, Log: []string{refusal + `"\x1b[2J@physics\n" refused: no such name`}}},
		{"long", strings.Repeat("a", 1000) + "@physics", "AAAA", "", nil,
			result{Exit: 1, Log: []string{refusal + `"` + strings.Repeat("a", 80) + `" refused: no such name`}}},
		{"huge key", "alice@physics", strings.Repeat("A", 70000), "alice@physics", nil,
			result{Exit: 1, Log: []string{refusal + `"alice@physics" refused: its key of 70000 bytes cannot be sent`}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &wiretest.Service{Principal: func(p wire.Peer, q wire.PrincipalsRequest) (string, error) {
				if q.KeyType != certType || q.Key != c.key || q.Account.String() != c.user || p.UID != 54321 {
					t.Errorf("uid %d asks %+v", p.UID, q)
				}
				return c.principal, c.err
			}}
			stop := s.Serve(t, h.Socket())
			defer stop()
			if diff := cmp.Diff(c.want, h.principals(t, c.user, certType, c.key)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("nobody reads", func(t *testing.T) {
		s := &wiretest.Service{Principal: func(wire.Peer, wire.PrincipalsRequest) (string, error) { return "alice@physics", nil }}
		s.Serve(t, h.Socket())
		err := h.Command("sh", "-c", "exec /run/lib/xos-principals alice@physics t k >/dev/full").Run()
		if err == nil || err.Error() != "exit status 1" {
			t.Errorf("it ends with %v", err)
		}
		if log := strings.Join(h.log.Entries(t), ""); !strings.Contains(log, "No space left") {
			t.Errorf("it logged %q", log)
		}
	})
}

// TestRootWithoutService: nobody is let in, soon, and the log says what to
// look at.
func TestRootWithoutService(t *testing.T) {
	h := newHost(t)
	answering := func(status uint32, fields ...any) func(*net.UnixConn) {
		return func(c *net.UnixConn) {
			op, _, _ := wiretest.ReadRequest(c)
			c.Write(wiretest.Message(op, status, wiretest.Fields(fields...)))
		}
	}
	for _, c := range []struct {
		name  string
		serve func(*net.UnixConn)
		log   string
		most  time.Duration
	}{
		{"dead", nil, "no answer from the session service (xos-node): No such file or directory", 0},
		{"closing", func(*net.UnixConn) {}, "no answer from the session service (xos-node): ", 0},
		{"wedged", func(c *net.UnixConn) { c.Read(make([]byte, 4096)); c.Read(make([]byte, 1)) }, "timed out", 10 * time.Second},
		{"two answers", answering(0, "alice@physics", "root"), "malformed reply", 0},
		{"no answer", answering(0), "malformed reply", 0},
		{"NUL", answering(0, "alice@physics\x00"), "malformed reply", 0},
		{"unknown status", answering(77, "alice@physics"), "alice@physics", 0},
		{"takes the terminal", answering(2, "\x1b[2J\x00"), "malformed reply", 0},
		{"takes the terminal still", answering(2, "\x1b[2J\rno"), "refused:  [2J no", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.serve != nil {
				stop := wiretest.Listen(t, h.Socket(), c.serve)
				defer stop()
			}
			start := time.Now()
			got := h.principals(t, "alice@physics", certType, "AAAA")
			if d := time.Since(start); d > c.most+2*time.Second { // to start programs
				t.Errorf("it took %v", d)
			}
			if got.Out != "" || got.Exit != 1 || len(got.Log) != 1 || !strings.Contains(got.Log[0], c.log) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestRootOnABusyMachine: where others eat the machine, the program may not have come
// to connect when its time for that is over. It asks all the same.
func TestRootOnABusyMachine(t *testing.T) {
	h := newHost(t)
	s := &wiretest.Service{Principal: func(wire.Peer, wire.PrincipalsRequest) (string, error) { return "alice@physics", nil }}
	s.Serve(t, h.Socket())
	source := filepath.Join(t.TempDir(), "busy.c")
	wiretest.Write(t, source, `
#include <sys/syscall.h>
#include <unistd.h>
int socket(int domain, int type, int protocol)
{
	usleep(300000);
	return (int)syscall(SYS_socket, domain, type, protocol);
}
`)
	h.Compile(t, source, "busy.so", "-shared", "-fPIC")
	out, err := h.As(54321, nil, "env", "LD_PRELOAD=/run/lib/busy.so", "/run/lib/xos-principals", "alice@physics", certType, "AAAA").CombinedOutput()
	if err != nil || string(out) != "alice@physics\n" {
		t.Errorf("it prints %q (%v) and logs %q", out, err, h.log.Entries(t))
	}
}

func TestRootArguments(t *testing.T) {
	h := newHost(t)
	s := new(wiretest.Service)
	s.Serve(t, h.Socket())
	usage := result{Err: "usage: xos-principals USER KEYTYPE KEY\n", Exit: 64}
	for _, args := range [][]string{nil, {"alice@physics"}, {"alice@physics", certType}, {"alice@physics", certType, "AAAA", "more"}, {"-help"}} {
		if diff := cmp.Diff(usage, h.principals(t, args...)); diff != "" {
			t.Errorf("%q: %s", args, diff)
		}
	}
	if diff := cmp.Diff(result{Out: "dev\n"}, h.principals(t, "-version")); diff != "" {
		t.Error(diff)
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the service was asked %v", calls)
	}
	// No log is no reason to let anyone in, or to wait.
	if err := os.Remove(filepath.Join(filepath.Dir(h.Run), "log")); err != nil {
		t.Fatal(err)
	}
	out, err := h.As(54321, nil, "/run/lib/xos-principals", "alice@physics", certType, "AAAA").CombinedOutput()
	if err == nil || err.Error() != "exit status 1" || len(out) != 0 {
		t.Errorf("without a log: %q, %v", out, err)
	}
}
