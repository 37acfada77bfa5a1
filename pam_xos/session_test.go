package pamxos_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// opening is a service that opens every session so.
func opening(r wire.PAMOpenReply, asked *wire.PAMOpenRequest) *wiretest.Service {
	return &wiretest.Service{Open: func(_ wire.Peer, q wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
		*asked = q
		return r, nil
	}}
}

// testEnvironment: the service learns all that PAM knows, the session has the
// environment that it gave, and is closed by its own name.
func testEnvironment(t *testing.T, h host) {
	auth := "publickey ssh-ed25519-cert-v01@openssh.com AAAA\npassword"
	for _, c := range []struct {
		name      string
		reply     wire.PAMOpenReply
		flags     string
		text, env string
	}{
		{"plain", wire.PAMOpenReply{Session: "s1"}, "", "", ""},
		{"full", wire.PAMOpenReply{Session: "s2", Env: []string{"XOS_SESSION=s2", "EMPTY=", "TWO=a=b c"}, Message: "hello"}, "",
			"hello\n", "XOS_SESSION=s2\nEMPTY=\nTWO=a=b c\n"},
		{"silent", wire.PAMOpenReply{Session: "s3", Env: []string{"A=b"}, Message: "hello"}, "(PAM_SILENT)", "", "A=b\n"},
		{"large", wire.PAMOpenReply{Session: xos.SessionID(strings.Repeat("s", 256)), Env: slices.Repeat([]string{"A=" + strings.Repeat("b", 900)}, 64)}, "",
			"", "A=" + strings.Repeat("b", 900) + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked wire.PAMOpenRequest
			s := opening(c.reply, &asked)
			stop := s.Serve(t, h.Socket())
			got := h.pam(t, "-E", "SSH_AUTH_INFO_0="+auth, "-I", "tty=ssh", "-I", "rhost=far",
				"shows", "alice@physics", "open_session"+c.flags, "close_session"+c.flags)
			stop()
			want := c.text + "SSH_AUTH_INFO_0=" + auth + "\n" + c.env +
				"PAM_SERVICE=shows\nPAM_USER=alice@physics\nPAM_TTY=ssh\nPAM_RHOST=far\nPAM_TYPE=open_session\n" + opened + "\n" + closed
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			q := wire.PAMOpenRequest{AuthInfo: auth, PAMRequest: wire.PAMRequest{
				Account: xos.Account{User: "alice", VO: "physics"}, Service: "shows", RemoteHost: "far", TTY: "ssh",
			}}
			if diff := cmp.Diff(q, asked); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"PAMOpen alice@physics", "PAMClose " + string(c.reply.Session)}, s.Calls()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// apart starts a process with a mount namespace of its own inside the room,
// which does not have the room's /run/lib.
func (h host) apart(t *testing.T) (path, name string) {
	t.Helper()
	c := h.Command("unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /run/lib; readlink /proc/self/ns/mnt; exec sleep 60")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	if name, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/mnt", c.Process.Pid), strings.TrimSpace(name)
}

// testNamespace: the login process enters the namespace that came with the
// session, and no other; its working directory stays if it is there.
func testNamespace(t *testing.T, h host) {
	path, name := h.apart(t)
	if err := os.Mkdir(filepath.Join(h.Lib, "here"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		in, to string // to: the namespace's file, "" for none
		dir    string // "" where the session cannot be opened
	}{
		{"/run/lib/here", "", "/run/lib/here"},
		{"/tmp", path, "/tmp"},
		{"/run/lib/here", path, "/"},
		{"/tmp", "/proc/self/ns/net", ""},
		{"/tmp", os.DevNull, ""},
	} {
		r := wire.PAMOpenReply{Session: "s1", Message: "hello"}
		if c.to != "" {
			f, err := os.Open(c.to)
			if err != nil {
				t.Fatal(err)
			}
			r.Namespace = f
		}
		s := opening(r, new(wire.PAMOpenRequest))
		stop := s.Serve(t, h.Socket())
		h.log.Entries(t)
		b, _ := h.Command("env", "-C", c.in, "pamtester", "where", "alice@physics", "open_session", "close_session").CombinedOutput()
		stop()
		got := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), "pamtester: ", "")), "\n")
		logged := strings.Join(h.log.Entries(t), "\n")
		if c.dir == "" {
			// The stack goes on, and shows that it is still where it was.
			failed, _, _ := strings.Cut(sessionErr, ",")
			if len(got) != 3 || got[1] != c.in || got[0] != failed || !strings.Contains(logged, "entering the session's namespace: Invalid argument") {
				t.Errorf("%s is taken for a namespace: %q, log %q", c.to, got, logged)
			}
		} else if len(got) != 5 || got[0] != "hello" || got[1] != c.dir || (got[2] == name) != (c.to == path) || got[3] != opened || got[4] != closed {
			t.Errorf("from %s, with %q: %q; the namespace is %s", c.in, c.to, got, name)
		}
		if diff := cmp.Diff([]string{"PAMOpen alice@physics", "PAMClose s1"}, s.Calls()); diff != "" {
			t.Error(diff)
		}
	}
}

// testNotOpened: the reason of a refusal reaches the user, also where the service
// ends the program then, which does not go on.
func testNotOpened(t *testing.T, h host) {
	ends := false
	s := &wiretest.Service{Open: func(p wire.Peer, _ wire.PAMOpenRequest) (r wire.PAMOpenReply, err error) {
		if ends {
			r.Refused = func() {
				if err := unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0); err != nil {
					t.Error(err)
				}
			}
		}
		return r, xos.Errorf(xos.Expired, "the certificate has run out").WithHint("xos login")
	}}
	s.Serve(t, h.Socket())
	if diff := cmp.Diff("the certificate has run out (xos login)\n"+sessionErr, h.pam(t, "permits", "alice@physics", "open_session")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("the certificate has run out (xos login)\n"+sessionErr, h.pam(t, "permits", "alice@physics", "open_session(PAM_SILENT)")); diff != "" {
		t.Error(diff)
	}
	ends = true
	for op, want := range map[string]string{
		"open_session":             "the certificate has run out (xos login), signal: killed",
		"open_session(PAM_SILENT)": "the certificate has run out (xos login), signal: killed",
	} {
		if diff := cmp.Diff(want, h.pam(t, "permits", "alice@physics", op)); diff != "" {
			t.Errorf("%s: %s", op, diff)
		}
	}
	ends = false
	s.Calls()
	// What does not fit into a request is not cut, but refused.
	if diff := cmp.Diff(down+sessionErr, h.pam(t, "-E", "SSH_AUTH_INFO_0="+strings.Repeat("x", 70000), "permits", "alice@physics", "open_session")); diff != "" {
		t.Error(diff)
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the service was asked %v", calls)
	}
}

// testClose: a session is closed by whoever opened it, once, and it is told
// when that fails.
func testClose(t *testing.T, h host) {
	failed, exit, _ := strings.Cut(sessionErr, ",") // printed before what succeeded
	notClosed := failed + "\n" + opened + "," + exit
	open := wiretest.Message(9, 0, wiretest.Fields("s1", []string{}, "", 0))
	for _, c := range []struct {
		name, ops string
		close     []byte // nil: the service dies
		want      string
		asked     []uint16
	}{
		{"twice", "open_session close_session close_session", wiretest.Message(10, 0, nil), opened + "\n" + closed + "\n" + closed, []uint16{9, 10}},
		{"again", "open_session close_session open_session close_session", wiretest.Message(10, 0, nil),
			opened + "\n" + closed + "\n" + opened + "\n" + closed, []uint16{9, 10, 9, 10}},
		{"never opened", "close_session", wiretest.Message(10, 0, nil), closed, nil},
		{"refused", "open_session close_session", wiretest.Message(10, 4, wiretest.Fields("not now")), "not now\n" + notClosed, []uint16{9, 10}},
		{"dead", "open_session close_session", nil, down + notClosed, []uint16{9, 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := make(chan uint16, 10)
			stop := wiretest.Listen(t, h.Socket(), func(conn *net.UnixConn) {
				op, fields, err := wiretest.ReadRequest(conn)
				if err != nil {
					return
				}
				asked <- op
				if op == 9 {
					conn.Write(open)
				} else if string(fields) == string(wiretest.Fields("s1")) {
					conn.Write(c.close)
				}
			})
			got := h.pam(t, append([]string{"-E", "XOS_SESSION=s2", "permits", "alice@physics"}, strings.Fields(c.ops)...)...)
			stop()
			close(asked)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			var ops []uint16
			for op := range asked {
				ops = append(ops, op)
			}
			if diff := cmp.Diff(c.asked, ops); diff != "" {
				t.Error(diff)
			}
		})
	}
}
