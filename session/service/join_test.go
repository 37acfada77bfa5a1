package service_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
)

// TestRootProgramsSayWhy: a program that opens a session for somebody who is not
// logged in is ended before it can go on, as sudo would, but not before it has told
// the user why, and what to do; then it joins her session. All is real but the
// programs' names: the modules, libpam, and su itself.
func TestRootProgramsSayWhy(t *testing.T) {
	need.Command(t, "pamtester")
	need.Command(t, "su")
	l := newLayer(t, nil)
	l.room.Build(t, "../../pam_xos/build.sh", "pam_xos.so")
	stack := "auth sufficient pam_rootok.so\nauth required pam_deny.so\naccount required /run/lib/pam_xos.so\n" +
		"session required /run/lib/pam_xos.so\nsession required pam_permit.so\n"
	for _, name := range []string{"sudo", "su", "su-l", "cron", "login", "other"} {
		l.room.PAM(t, name, stack)
	}
	if out := l.get("getent", "passwd", alice.String()); out == "" {
		t.Fatal("she has no uid")
	}
	run := func(args ...string) (out string, killed bool, err error) {
		t.Helper()
		b, err := l.room.Command(args...).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); ok {
			killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		}
		return string(b), killed, err
	}
	programs := map[string][]string{
		"su":   {"su", "-s", "/bin/echo", alice.String(), "went on"},
		"su-l": {"su", "-", "-s", "/bin/echo", alice.String(), "went on"},
	}
	for _, name := range []string{"sudo", "cron", "login"} {
		programs[name] = []string{"pamtester", name, alice.String(), "acct_mgmt", "open_session", "setcred(PAM_ESTABLISH_CRED)"}
	}
	for name, args := range programs {
		begin := time.Now()
		out, killed, _ := run(args...)
		why := "alice@physics is not logged in on node1, and " + name + " lets in only who is " +
			"(log in there first, by ssh or with the grid password, and stay: sudo, su and cron can join that session"
		if !strings.Contains(out, why) {
			t.Errorf("%s does not say %q:\n%s", name, why, out)
		}
		if !killed || strings.Contains(out, "session has") || strings.Contains(out, "opened a session") || strings.Contains(out, "went on") {
			t.Errorf("%s goes on (killed: %v):\n%s", name, killed, out)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Logf("%s took %v", name, d)
		}
	}
	// Who wants silence is ended, too, and not without a word.
	if out, killed, _ := run("pamtester", "sudo", alice.String(), "open_session(PAM_SILENT)"); !killed || strings.Count(out, "is not logged in on node1") != 1 {
		t.Errorf("in silence (killed: %v): %s", killed, out)
	}
	// A program that does not get its message out, for nobody reads it, is ended
	// all the same.
	stuck := l.room.Command("sh", "-c", "yes | tr -d '\\n' | head -c 65536 >&2; exec pamtester sudo "+alice.String()+" open_session")
	unread, err := stuck.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = stuck.Process.Wait() // not Cmd.Wait, which would close the pipe
	unread.Close()
	if err != nil {
		t.Error(err)
	}
	if l.sessions() != 0 {
		t.Errorf("%d sessions are open", l.sessions())
	}

	if _, _, err := l.open(alice, l.certificate()); err != nil {
		t.Fatal(err)
	}
	for name, args := range programs {
		if name == "su" || name == "su-l" {
			continue // they would need a home, a shell, and the right to become her
		}
		args[len(args)-1] = "close_session"
		if out, _, err := run(args...); err != nil || !strings.Contains(out, "session has successfully been closed") {
			t.Errorf("%s, while she is logged in: %v\n%s", name, err, out)
		}
	}
}
