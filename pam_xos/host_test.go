package pamxos_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

const ours = "[success=done ignore=ignore default=die] /run/lib/pam_xos.so\n"

// stack is a service that ends with a module of the distribution, before which
// the module under test either decides or stays out of it.
func stack(session, last string) string {
	return "auth " + ours + "auth required " + last +
		"\naccount " + ours + "account required " + last +
		"\nsession " + ours + session + "session required " + last +
		"\npassword " + ours + "password required " + last + "\n"
}

// host is a room with PAM services "permits" and "denies", whose stacks end so,
// and "shows" and "where", which print what environment an opened session has
// and where it is.
type host struct {
	*wiretest.Room
	log *wiretest.Log
}

// TestRootHost runs the module in pamtester, on the system's libpam.
func TestRootHost(t *testing.T) {
	h := newHost(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, host)
	}{
		{"account", testAccount}, {"password", testPassword}, {"secret", testSecret}, {"without asking", testWithoutAsking}, {"others", testOthers},
		{"environment", testEnvironment}, {"namespace", testNamespace}, {"not opened", testNotOpened}, {"close", testClose},
		{"without a service", testWithout}, {"frames", testFrames}, {"damaged", testDamaged},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
}

func newHost(t testing.TB) host {
	t.Helper()
	need.Command(t, "pamtester")
	r := wiretest.NewRoom(t, "files xos")
	r.Build(t, "build.sh", "pam_xos.so")
	r.Build(t, "../nss_xos/build.sh", "libnss_xos.so.2")
	r.Snapshot(t)
	r.PAM(t, "permits", stack("", "pam_permit.so"))
	r.PAM(t, "denies", stack("", "pam_deny.so"))
	r.PAM(t, "shows", "session required /run/lib/pam_xos.so\n"+
		"session required pam_exec.so quiet stdout type=open_session /usr/bin/env\n")
	r.PAM(t, "where", "session required /run/lib/pam_xos.so\n"+
		"session required pam_exec.so quiet stdout type=open_session /usr/bin/pwd\n"+
		"session required pam_exec.so quiet stdout type=open_session /usr/bin/readlink /proc/self/ns/mnt\n")
	r.PAM(t, "other", "auth required pam_deny.so\naccount required pam_deny.so\nsession required pam_deny.so\npassword required pam_deny.so\n")
	r.Local(t, "carol@physics:x:4242:4242::/:/bin/sh")
	return host{r, r.Log(t)}
}

// pam runs pamtester and gives what it printed, and "exit N" if it failed.
func (h host) pam(t testing.TB, args ...string) string {
	t.Helper()
	return h.types(t, "", args...)
}

// types is pam for one who types something.
func (h host) types(t testing.TB, text string, args ...string) string {
	t.Helper()
	cmd := h.Command(append([]string{"pamtester"}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	text = strings.ReplaceAll(strings.TrimSpace(string(out)), "pamtester: ", "")
	if _, ok := err.(*exec.ExitError); ok {
		return text + ", " + err.Error()
	} else if err != nil {
		t.Fatal(err)
	}
	return text
}

// slack is what starting a few programs may take on a busy machine.
const slack = 2 * time.Second

// What pamtester says.
const (
	authOK      = "successfully authenticated"
	authErr     = "Authentication failure, exit status 1"
	accountOK   = "account management done."
	denied      = "Permission denied, exit status 1"
	unknown     = "User not known to the underlying authentication module, exit status 1"
	expired     = "User account has expired, exit status 1"
	unavailable = "Authentication service cannot retrieve authentication info, exit status 1"
	opened      = "successfully opened a session"
	closed      = "session has successfully been closed."
	sessionErr  = "Cannot make/remove an entry for the specified session, exit status 1"
	changed     = "authentication token altered successfully."
	changeErr   = "Authentication token manipulation error, exit status 1"

	down   = "the session service of this machine (xos-node) does not answer: try again in a minute, then tell the administrator\n"
	prompt = "Grid password: "
)

func TestRootGate(t *testing.T) {
	r := wiretest.NewRoom(t, "files")
	wiretest.Gate(t, r.Build(t, "build.sh", "pam_xos.so"), []string{"libc.so.6", "libpam.so.0"}, []string{
		"pam_sm_authenticate", "pam_sm_setcred", "pam_sm_acct_mgmt",
		"pam_sm_open_session", "pam_sm_close_session", "pam_sm_chauthtok",
	})
}

func testAccount(t *testing.T, h host) {
	h.log.Entries(t)
	alice := xos.Account{User: "alice", VO: "physics"}
	for _, c := range []struct {
		name, message string
		err           error
		op            string
		want, log     string
	}{
		{"yes", "", nil, "acct_mgmt", accountOK, ""},
		{"yes with a message", "the disk is full", nil, "acct_mgmt", "the disk is full\n" + accountOK, ""},
		{"silent yes", "the disk is full", nil, "acct_mgmt(PAM_SILENT)", accountOK, ""},
		{"policy", "", xos.Errorf(xos.Permission, "alice is banned").WithHint("ask bob"), "acct_mgmt",
			"alice is banned (ask bob)\n" + denied, "refused, status 2: alice is banned (ask bob)"},
		{"silent policy", "", xos.Errorf(xos.Permission, "alice is banned"), "acct_mgmt(PAM_SILENT)",
			denied, "refused, status 2: alice is banned"},
		{"unknown", "", xos.Errorf(xos.NotFound, "who?"), "acct_mgmt", "who?\n" + unknown, "status 1: who?"},
		{"expired", "", xos.Errorf(xos.Expired, "too late"), "acct_mgmt", "too late\n" + expired, "status 6: too late"},
		{"busy", "", xos.Errorf(xos.Unavailable, "starting"), "acct_mgmt", "starting\n" + unavailable, "status 4: starting"},
		{"unsupported", "", xos.Errorf(xos.NotSupported, "no VO here"), "acct_mgmt", "no VO here\n" + denied, "status 5: no VO here"},
		{"failed", "", xos.Errorf(xos.Internal, "secret"), "acct_mgmt",
			"the session service of this machine has failed; its log says why\n" + denied, "status 7: the session service"},
		{"two lines", "", xos.Errorf(xos.Permission, "no\nroot: let in"), "acct_mgmt",
			"no\nroot: let in\n" + denied, "status 2: no?root: let in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked wire.PAMRequest
			s := &wiretest.Service{Account: func(_ wire.Peer, q wire.PAMRequest) (string, error) {
				asked = q
				return c.message, c.err
			}}
			stop := s.Serve(t, h.Socket())
			got := h.pam(t, "-I", "tty=ssh", "-I", "rhost=192.0.2.7", "denies", "alice@physics", c.op)
			stop()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			want := wire.PAMRequest{Account: alice, Service: "denies", RemoteHost: "192.0.2.7", TTY: "ssh"}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Error(diff)
			}
			text := strings.Join(h.log.Entries(t), "\n")
			if (c.log == "") != (text == "") || !strings.Contains(text, c.log) {
				t.Errorf("it logged %q, want %q", text, c.log)
			}
		})
	}
}

// answering gives every request the same answer.
func answering(status uint32, fields []byte) func(*net.UnixConn) {
	return func(c *net.UnixConn) {
		op, _, err := wiretest.ReadRequest(c)
		if err == nil {
			c.Write(wiretest.Message(op, status, fields))
		}
	}
}

// testOthers: whoever is no grid user is neither asked about nor held up
// nor let in by this module, though the service hangs.
func testOthers(t *testing.T, h host) {
	asked := make(chan bool, 1000)
	wiretest.Listen(t, h.Socket(), func(c *net.UnixConn) {
		asked <- true
		c.Read(make([]byte, 4096))
		c.Read(make([]byte, 1))
	})
	ops := []string{"authenticate", "acct_mgmt", "open_session", "close_session", "chauthtok"}
	for _, user := range []string{
		"root", "nobody", "nosuchuser", "alice", "carol@physics", "root@physics", "xos@physics", "Alice@physics",
		"alice@Physics", "alice@", "@physics", "alice@@physics", "alice@physics@physics", "alice@physics.", "-alice@physics",
		"alice@phy/sics", "alice@physics ", "älice@physics", "alice\n@physics", "../alice@physics",
		strings.Repeat("a", 33) + "@physics", "a@" + strings.Repeat("b", 33), strings.Repeat("a", 5000) + "@physics",
	} {
		start := time.Now()
		want := strings.Join([]string{authOK, accountOK, opened, closed, changed}, "\n")
		if got := h.pam(t, append([]string{"permits", user}, ops...)...); got != want {
			t.Errorf("%.40q is refused: %s", user, got)
		}
		if d := time.Since(start); d > slack {
			t.Errorf("%.40q waits for %v", user, d)
		}
	}
	for _, op := range ops {
		if got := h.pam(t, "denies", "root", op); !strings.HasSuffix(got, "exit status 1") {
			t.Errorf("the module lets root in: %s gives %s", op, got)
		}
	}
	if len(asked) != 0 {
		t.Errorf("the service was asked %d times", len(asked))
	}
}
