package pamxos_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/msteinert/pam/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// TestMain lets the test binary play a program that lets people in, in the room:
// see application.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "application" {
		os.Exit(application(os.Args[2], os.Args[3], os.Args[4:]))
	}
	os.Exit(m.Run())
}

var calls = map[string]func(*pam.Transaction, pam.Flags) error{
	"auth": (*pam.Transaction).Authenticate, "setcred": (*pam.Transaction).SetCred, "acct": (*pam.Transaction).AcctMgmt,
	"open": (*pam.Transaction).OpenSession, "close": (*pam.Transaction).CloseSession, "chauthtok": (*pam.Transaction).ChangeAuthTok,
}

var flags = map[string]pam.Flags{
	"silent": pam.Silent, "establish": pam.EstablishCred, "delete": pam.DeleteCred, "reinitialize": pam.ReinitializeCred,
	"refresh": pam.RefreshCred, "expired": pam.ChangeExpiredAuthtok, "no null": pam.DisallowNullAuthtok, "unknown": 1 << 20,
}

// application does steps with one handle of libpam, "CALL" or "CALL/FLAG", and
// prints what it was shown and how they went. "answer=TEXT" is how it answers
// questions from then on; "fail" and "panic" are other ways.
func application(service, user string, steps []string) int {
	answer := "fail"
	t, err := pam.StartFunc(service, user, func(style pam.Style, text string) (string, error) {
		fmt.Printf("%v %q\n", map[pam.Style]string{pam.PromptEchoOff: "hidden", pam.PromptEchoOn: "asked", pam.ErrorMsg: "error", pam.TextInfo: "info"}[style], text)
		if a, ok := strings.CutPrefix(answer, "="); ok {
			return a, nil
		}
		return "", errors.New("no answer")
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, step := range steps {
		if a, ok := strings.CutPrefix(step, "answer"); ok {
			answer = a
			continue
		}
		if name, ok := strings.CutPrefix(step, "env "); ok {
			fmt.Printf("%s is %q\n", name, t.GetEnv(name))
			continue
		}
		if user, ok := strings.CutPrefix(step, "user "); ok {
			if err := t.SetItem(pam.User, user); err != nil {
				fmt.Println(err)
			}
			continue
		}
		call, flag, _ := strings.Cut(step, "/")
		if err := calls[call](t, flags[flag]); err != nil {
			fmt.Printf("%s: %v\n", step, err)
		} else {
			fmt.Printf("%s: ok\n", step)
		}
	}
	if err := t.End(); err != nil {
		fmt.Println("end:", err)
	}
	return 0
}

// applies runs the application for a user with what her environment may have in
// it where it is set-uid.
func (h host) applies(t testing.TB, service, user string, steps ...string) string {
	t.Helper()
	cmd := h.Command(append([]string{os.Args[0], "application", service, user}, steps...)...)
	cmd.Env = append(os.Environ(), "XOS_SOCKET=/tmp/evil", "XOS_RUN=/tmp", "XOS_SESSION=s-another", "SSH_AUTH_INFO_0=publickey forged", "PAM_USER=root", "HOME=/tmp",
		"TMPDIR=/tmp", "XOS_SSH_AGENT=/tmp/evil", "GODEBUG=madvdontneed=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
		return string(out) + err.Error()
	}
	return string(out)
}

// TestRootApplication: what a program may do with the module, in whatever order,
// with answers of whatever kind, has one outcome, and asks the service for no more
// than that.
func TestRootApplication(t *testing.T) {
	h := newHost(t)
	const elsewhere = `error "the password of a grid user is not kept on this machine: change it with \"xos passwd\"; if it is lost, ask your grid's administrator for a token, then \"xos login USER@VO --token -\" lets you choose a new one"` + "\n"
	const asks, wrong = `hidden "Grid password: "` + "\n", `error "wrong user or password"` + "\n"
	const (
		authErr    = "Authentication failure\n"
		convErr    = "Conversation error\n"
		changeErr  = "Authentication token manipulation error\n"
		denied     = "Permission denied\n" // libpam's, of a stack that has said no before
		sessionErr = "Cannot make/remove an entry for the specified session\n"
	)
	for _, c := range []struct {
		name, service string
		steps         []string
		want          string
		asked         []string
	}{
		{"a login", "permits", []string{"answer=right", "auth", "acct", "setcred/establish", "open", "env XOS_SESSION", "close", "setcred/delete"},
			asks + "auth: ok\ninfo \"welcome\"\nacct: ok\nsetcred/establish: ok\ninfo \"hello\"\nopen: ok\nXOS_SESSION is \"s1\"\nclose: ok\nsetcred/delete: ok\n",
			[]string{"PAMAuth alice@physics", "PAMAccount alice@physics", "PAMOpen alice@physics", "PAMClose s1"}},
		{"setcred before auth", "permits", []string{"setcred/establish", "setcred/reinitialize", "setcred/refresh", "setcred/delete", "setcred/unknown", "setcred"},
			"setcred/establish: ok\nsetcred/reinitialize: ok\nsetcred/refresh: ok\nsetcred/delete: ok\nsetcred/unknown: ok\nsetcred: ok\n", nil},
		{"setcred lets nobody in", "denies", []string{"setcred/establish", "setcred/reinitialize"},
			"setcred/establish: Failure setting user credentials\nsetcred/reinitialize: Failure setting user credentials\n", nil},
		{"setcred after a wrong password", "permits", []string{"answer=wrong", "auth", "setcred/establish"},
			asks + wrong + "auth: " + authErr + "setcred/establish: " + denied, []string{"PAMAuth alice@physics"}},
		{"no answer", "permits", []string{"auth", "auth/no null"}, asks + "auth: " + convErr + asks + "auth/no null: " + convErr, nil},
		{"a huge answer", "permits", []string{"answer=" + strings.Repeat("x", 100000), "auth"}, asks + wrong + "auth: " + authErr, nil},
		{"an answer with a line in it", "permits", []string{"answer=ri\nght", "auth"}, asks + wrong + "auth: " + authErr, []string{"PAMAuth alice@physics"}},
		{"another answer", "permits", []string{"answer=wrong", "auth", "answer=right", "auth"}, asks + wrong + "auth: " + authErr + asks + "auth: ok\n",
			[]string{"PAMAuth alice@physics", "PAMAuth alice@physics"}},
		{"close without open", "permits", []string{"close", "close"}, "close: ok\nclose: ok\n", nil},
		{"close of another's", "permits", []string{"open", "user bob@physics", "close", "close"}, "info \"hello\"\nopen: ok\nclose: ok\nclose: ok\n",
			[]string{"PAMOpen alice@physics", "PAMClose s1"}},
		{"open twice", "permits", []string{"open", "open/silent", "close", "close"}, "info \"hello\"\nopen: ok\nopen/silent: ok\nclose: ok\nclose: ok\n",
			[]string{"PAMOpen alice@physics", "PAMOpen alice@physics", "PAMClose s1", "PAMClose s2"}},
		{"open for another", "permits", []string{"open/silent", "user bob@physics", "open", "close"}, "open/silent: ok\nerror \"bob is not here\"\nopen: " + sessionErr + "close: " + denied,
			[]string{"PAMOpen alice@physics", "PAMOpen bob@physics", "PAMClose s1"}},
		{"account alone", "permits", []string{"acct/silent", "acct"}, "acct/silent: ok\ninfo \"welcome\"\nacct: ok\n", []string{"PAMAccount alice@physics", "PAMAccount alice@physics"}},
		{"a new password", "permits", []string{"answer=right", "chauthtok", "chauthtok/expired", "chauthtok/silent"},
			elsewhere + "chauthtok: " + changeErr + elsewhere + "chauthtok/expired: " + changeErr + "chauthtok/silent: " + changeErr, nil},
		{"a new password in between", "permits", []string{"answer=right", "auth", "chauthtok/expired", "acct/silent"},
			asks + "auth: ok\n" + elsewhere + "chauthtok/expired: " + changeErr + "acct/silent: ok\n", []string{"PAMAuth alice@physics", "PAMAccount alice@physics"}},
		{"deaf", "permits", []string{"acct", "open", "close"}, "info \"welcome\"\nacct: ok\ninfo \"hello\"\nopen: ok\nclose: ok\n",
			[]string{"PAMAccount alice@physics", "PAMOpen alice@physics", "PAMClose s1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			s := &wiretest.Service{
				Auth: func(_ wire.Peer, q wire.PAMAuthRequest) error {
					if string(q.Password) != "right" {
						return xos.Errorf(xos.Permission, "wrong user or password")
					}
					return nil
				},
				Account: func(wire.Peer, wire.PAMRequest) (string, error) { return "welcome", nil },
				Open: func(_ wire.Peer, q wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
					if q.AuthInfo != "" {
						t.Errorf("the user's environment is taken for sshd's word: %q", q.AuthInfo)
					}
					if q.Account.User != "alice" {
						return wire.PAMOpenReply{}, xos.Errorf(xos.Permission, "%s is not here", q.Account.User)
					}
					n++
					id := fmt.Sprintf("s%d", n)
					return wire.PAMOpenReply{Session: xos.SessionID(id), Env: []string{"XOS_SESSION=" + id}, Message: "hello"}, nil
				},
			}
			stop := s.Serve(t, h.Socket())
			got := h.applies(t, c.service, "alice@physics", c.steps...)
			stop()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			asked := slices.DeleteFunc(s.Calls(), func(call string) bool { return strings.HasPrefix(call, "Get") })
			if diff := cmp.Diff(c.asked, asked); len(c.asked)+len(asked) > 0 && diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRootApplicationWithout: a service that is away, has stopped in the middle,
// answers rubbish or half, fails the call in time, with a word for the user; the
// handle is as good as before for the next.
func TestRootApplicationWithout(t *testing.T) {
	h := newHost(t)
	hasty(t, h)
	rubbish := func(text string) func(*testing.T) func() {
		return func(t *testing.T) func() {
			return wiretest.Listen(t, h.Socket(), func(c *net.UnixConn) {
				wiretest.ReadRequest(c)
				c.Write([]byte(text))
			})
		}
	}
	away := `error "the session service of this machine (xos-node) does not answer: try again in a minute, then tell the administrator"` + "\n"
	for _, c := range []struct {
		name string
		set  func(*testing.T) func()
	}{
		{"away", func(*testing.T) func() { return func() {} }},
		{"stopped", func(t *testing.T) func() { queue(t, h.Socket(), 0); return func() {} }},
		{"wedged", func(t *testing.T) func() { return wiretest.Listen(t, h.Socket(), hang) }},
		{"text", rubbish("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{"half", rubbish(string(wiretest.Message(9, 0, nil)[:11]))},
		{"another answer", rubbish(string(wiretest.Message(77, 0, nil)))},
		{"too long", rubbish(string(wiretest.Message(9, 0, nil)[:8]) + "\xff\xff\xff\xff\x00\x00\x00\x00")},
	} {
		t.Run(c.name, func(t *testing.T) {
			stop := c.set(t)
			start := time.Now()
			got := h.applies(t, "hasty", "alice@physics", "answer=right", "auth", "acct", "open", "close")
			d := time.Since(start)
			stop()
			want := "hidden \"Grid password: \"\n" + away + "auth: Authentication service cannot retrieve authentication info\n" + away +
				"acct: Authentication service cannot retrieve authentication info\n" + away + "open: Cannot make/remove an entry for the specified session\nclose: Permission denied\n"
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if d > slack+2*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}
