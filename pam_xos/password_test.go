package pamxos_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// testPassword: the service hears the password as it was typed, and its answer
// decides, whatever comes after the module in the stack.
func testPassword(t *testing.T, h host) {
	right := "it's a långt \"one\" with \\ and 100%s"
	for _, c := range []struct {
		name, typed, op string
		err             error
		want            string
		heard           string // "" where the service must not be asked
	}{
		{"right", right, "authenticate", nil, prompt + authOK, right},
		{"right, silent", right, "authenticate(PAM_SILENT)", nil, prompt + authOK, right},
		{"longest", strings.Repeat("x", 256), "authenticate", nil, prompt + authOK, strings.Repeat("x", 256)},
		{"too long", strings.Repeat("x", 257), "authenticate", nil, prompt + "wrong user or password\n" + authErr, ""},
		{"empty", "", "authenticate", nil, prompt + "wrong user or password\n" + authErr, ""},
		{"wrong", "guess", "authenticate", xos.Errorf(xos.Permission, "wrong user or password"), prompt + "wrong user or password\n" + authErr, "guess"},
		{"unknown", "guess", "authenticate", xos.Errorf(xos.NotFound, "who?"), prompt + "who?\n" + authErr, "guess"},
		{"too often", "guess", "authenticate", xos.Errorf(xos.Unavailable, "too many wrong passwords"), prompt + "too many wrong passwords\n" + unavailable, "guess"},
		{"without the core", right, "authenticate", xos.Errorf(xos.Unavailable, "no answer from the core"), prompt + "no answer from the core\n" + unavailable, right},
		{"expired", right, "authenticate", xos.Errorf(xos.Expired, "too late"), prompt + "too late\n" + expired, right},
		{"failed", right, "authenticate", xos.Errorf(xos.Internal, "of the log"), prompt + "the session service of this machine has failed; its log says why\n" + authErr, right},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // a wrong password is answered after a while
			h := newHost(t)
			var asked wire.PAMRequest
			heard := ""
			s := &wiretest.Service{Auth: func(_ wire.Peer, q wire.PAMAuthRequest) error {
				asked, heard = q.PAMRequest, string(q.Password)
				return c.err
			}}
			stop := s.Serve(t, h.Socket())
			got := h.types(t, c.typed+"\n", "-I", "rhost=192.0.2.7", "-I", "tty=ssh", "permits", "alice@physics", c.op)
			stop()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if heard != c.heard {
				t.Errorf("the service heard %q", heard)
			}
			want := wire.PAMRequest{Account: xos.Account{User: "alice", VO: "physics"}, Service: "permits", RemoteHost: "192.0.2.7", TTY: "ssh"}
			if diff := cmp.Diff(want, asked); heard != "" && diff != "" {
				t.Error(diff)
			}
		})
	}
}

// testSecret: a password is neither in a log nor in the module's answers, nor
// printed by whoever prints a request in Go.
func testSecret(t *testing.T, h host) {
	h.log.Entries(t)
	s := &wiretest.Service{Auth: func(_ wire.Peer, q wire.PAMAuthRequest) error {
		if text := fmt.Sprintf("%v %+v %#v %s %q %x", q, q, q, q.Password, q.Password, q.Password); strings.Contains(text, "s3cret") || strings.Contains(text, "733363726574") || strings.Contains(text, "115") {
			t.Errorf("printed: %s", text)
		}
		return xos.Errorf(xos.Permission, "wrong user or password")
	}}
	stop := s.Serve(t, h.Socket())
	for _, typed := range []string{"s3cret", strings.Repeat("s3cret", 100)} {
		if got := h.types(t, typed+"\n", "denies", "alice@physics", "authenticate"); strings.Contains(got, "s3cret") {
			t.Error(got)
		}
	}
	stop()
	h.types(t, "s3cret\n", "denies", "alice@physics", "authenticate") // nobody answers
	if text := strings.Join(h.log.Entries(t), "\n"); strings.Contains(text, "s3cret") || !strings.Contains(text, "refused, status 2") {
		t.Errorf("it logged %q", text)
	}
}

// testWithoutAsking: only the service lets anybody in, and there is no password
// to change here.
func testWithoutAsking(t *testing.T, h host) {
	for _, c := range []struct {
		name   string
		fields []byte
	}{{"a yes and more", wiretest.Fields("welcome")}, {"a broken yes", []byte{1, 2}}} {
		stop := wiretest.Listen(t, h.Socket(), answering(0, c.fields))
		if got := h.types(t, "guess\n", "permits", "alice@physics", "authenticate"); got != prompt+authErr {
			t.Errorf("%s: %s", c.name, got)
		}
		stop()
	}
	elsewhere := `the password of a grid user is not kept on this machine: change it with "xos passwd"; if it is lost, ask your grid's administrator for a token, then "xos login USER@VO --token -" lets you choose a new one` + "\n"
	start := time.Now()
	for op, want := range map[string]string{
		"authenticate":                prompt + down + unavailable,
		"authenticate(PAM_SILENT)":    prompt + unavailable,
		"authenticate acct_mgmt":      prompt + down + unavailable,
		"setcred(PAM_ESTABLISH_CRED)": "credential info has successfully been set.",
		"chauthtok":                   elsewhere + changeErr,
		"chauthtok(PAM_SILENT)":       changeErr,
		"acct_mgmt chauthtok":         down + unavailable,
		"open_session":                down + sessionErr,
		"open_session(PAM_SILENT)":    sessionErr,
		"close_session":               closed,
	} {
		args := append([]string{"permits", "alice@physics"}, strings.Fields(op)...)
		if diff := cmp.Diff(want, h.types(t, "guess\n", args...)); diff != "" {
			t.Errorf("%s: %s", op, diff)
		}
	}
	if d := time.Since(start); d > 10*slack {
		t.Errorf("it took %v", d)
	}
	// Who cannot be asked is not let in.
	if got := h.pam(t, "permits", "alice@physics", "authenticate"); !strings.Contains(got, "exit status 1") {
		t.Error(got)
	}
}
