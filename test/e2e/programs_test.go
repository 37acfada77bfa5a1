package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// TestRootPrograms: what else opens sessions on a machine does it for a grid user
// too, while she is logged in: sudo, su, cron, and systemd's manager for her.
// Where she is not, none does.
func TestRootPrograms(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "nora", "lab")
	node := g.Node("node1")
	root := func(command string, status int, texts ...string) {
		t.Helper()
		out, got, err := story.Run(ctx, node, "root", command)
		if err != nil || got != status {
			t.Errorf("%s: status %d, want %d (%v)\n%s", command, got, status, err, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: the output lacks %q\n%s", command, text, out)
			}
		}
	}
	// Who is not logged in cannot be joined: what asks for a session all the same
	// is ended, and says why, sudo too, which wants modules to be silent.
	root("getent passwd nora@lab", 0) // she has a uid, as after any try
	for program, c := range map[string]string{"sudo": "sudo -u nora@lab echo went on", "su-l": "su - nora@lab -c 'echo went on'",
		"cron": "pamtester cron nora@lab acct_mgmt open_session 'setcred(PAM_ESTABLISH_CRED)'"} {
		out, status, err := story.Run(ctx, node, "root", c)
		if err != nil || status == 0 || strings.Contains(out, "went on") || strings.Contains(out, "credential") {
			t.Errorf("without a session, %s: status %d (%v)\n%s", c, status, err, out)
		}
		why := "nora@lab is not logged in on node1, and " + program + " lets in only who is (log in there first, by ssh or with the grid password, and stay"
		if !strings.Contains(out, why) {
			t.Errorf("%s does not say why:\n%s", c, out)
		}
		root("journalctl -q --no-pager", 0, why)
	}
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "nora")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	if _, err := sh.Enter(ctx, "ssh nora@lab@node1"); err != nil {
		t.Fatal(err)
	}
	within := func(command, text string) {
		t.Helper()
		if r := do(ctx, t, sh, command); !strings.Contains(r.Output, text) {
			t.Errorf("%s: the output lacks %q: %s", command, text, r.Output)
		}
	}
	t.Run("records", func(t *testing.T) { testRecords(ctx, t, g, sh) })
	within("echo '* * * * * id -un >~/cron; sync ~/cron' | crontab - && crontab -l", "sync ~/cron")

	t.Run("sudo", func(t *testing.T) {
		root("sudo -u nora@lab sh -c 'id -un; id -Gn; findmnt -no FSTYPE -T ~nora@lab'", 0, "nora@lab", "lab")
		within("sudo -n id; echo status $?", "status 1")
		root("echo '%lab ALL=(root) NOPASSWD: /usr/bin/id' >/etc/sudoers.d/lab && chmod 440 /etc/sudoers.d/lab && visudo -cq", 0)
		defer root("rm /etc/sudoers.d/lab", 0)
		within("sudo -n id -u; echo status $?", "0\nstatus 0")
		within("sudo -n true; echo status $?", "status 1")
		// With her grid password, at a terminal, from a pipe, and by a program.
		root("echo '%lab ALL=(root) /usr/bin/id' >/etc/sudoers.d/lab", 0)
		typed := func(command string, words ...string) string {
			t.Helper()
			if err := sh.Send(command + "; echo status $?\n"); err != nil {
				t.Fatal(err)
			}
			seen := ""
			for _, w := range words {
				before, _, err := sh.Expect(ctx, passwordPrompt)
				if err != nil {
					t.Fatalf("%s: %v", command, err)
				}
				seen += before
				if err := sh.Send(w + "\n"); err != nil {
					t.Fatal(err)
				}
			}
			r, err := sh.Prompt(ctx)
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			return seen + r.Output
		}
		for _, c := range []struct {
			command string
			words   []string
			texts   string
		}{
			{"sudo -k id -u", []string{"wrong-guess", "long-enough"}, `Sorry, try again.*0\s+status 0`},
			{"sudo -k /usr/bin/true", []string{"long-enough"}, "nora@lab is not allowed to execute '/usr/bin/true' as root.*status 1"},
			{"sudo -k -u lisa@lab id", []string{"long-enough"}, "unknown user lisa@lab|is not allowed.*status 1"},
			{"echo long-enough | sudo -k -S id -u", nil, `Grid password: 0\s+status 0`},
			{"printf '#!/bin/sh\\necho long-enough\\n' >ask; chmod 700 ask; SUDO_ASKPASS=$PWD/ask sudo -k -A id -u", nil, `0\s+status 0`},
		} {
			if out := typed(c.command, c.words...); !regexp.MustCompile("(?s)" + c.texts).MatchString(out) {
				t.Errorf("%s: %q, want %q", c.command, out, c.texts)
			}
		}
	})
	t.Run("su", func(t *testing.T) {
		root("su - nora@lab -c 'id -un; pwd; xos whoami | head -1'", 0, "nora@lab", "/home/xos/lab/nora")
	})
	t.Run("systemd", func(t *testing.T) {
		root("loginctl list-sessions --no-legend", 0, "nora@lab")
		root("systemctl is-active user@$(id -u nora@lab)", 0, "active")
		within("systemctl --user is-active basic.target", "active")
		within("systemctl --user daemon-reload && systemctl --user daemon-reexec && echo reloaded", "reloaded")
		within("systemd-run --user -q --wait --pipe id -un", "nora@lab")
	})
	eventually(t, 80*time.Second, "cron runs hers", func() error {
		if r := do(ctx, t, sh, "cat ~/cron"); !strings.Contains(r.Output, "nora@lab") {
			out, _, _ := story.Run(ctx, node, "root", "journalctl -q --no-pager -n 20 -t CRON -u cron")
			return fmt.Errorf("%s\n%s", r.Output, out)
		}
		return nil
	})
	do(ctx, t, sh, "crontab -r")
}

// testRecords: of logins on node1, of VOs and of none, the administrator sees
// all; a member sees her own VO's in who, and of records of the past none
// but her own, which xos has.
func testRecords(ctx context.Context, t *testing.T, g *testbed.Grid, nora *testbed.Shell) {
	node := g.Node("node1")
	root := func(command string, texts ...string) string {
		t.Helper()
		out, status, err := story.Run(ctx, node, "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s: status %d (%v)\n%s", command, status, err, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: the output lacks %q\n%s", command, text, out)
			}
		}
		return out
	}
	root("id lisa 2>/dev/null || useradd -m -s /bin/bash lisa")
	last := "lastlog2"
	if testbed.Chosen() == testbed.Bookworm {
		last = "" // lastlog has no grid users, see below
		root("test -s /run/utmp -a -e /var/log/wtmp -a -e /var/log/lastlog")
	} else {
		// As Debian 12 has it; the VO's sessions are made after that.
		root("install -m 664 -g utmp /dev/null /run/utmp; touch /var/log/wtmp")
		defer root("rm /run/utmp")
	}
	if _, err := g.Node("core").Output(ctx, "xos", "vo", "create", "tally"); err != nil {
		t.Fatal(err)
	}
	newMember(ctx, t, g, "ott", "tally")
	login := func(machine, user, command string) *testbed.Shell {
		t.Helper()
		sh, err := g.Node(machine).Shell(ctx, "su", "-l", user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sh.Close() })
		if command == "" {
			return sh
		}
		if _, err := sh.Enter(ctx, command); err != nil {
			t.Fatal(err)
		}
		return sh
	}
	key, _ := as(ctx, t, g, "ott", "ssh-keygen -q -t ed25519 -N '' -f ~/plain && cat ~/plain.pub")
	root("install -d -m 700 -o lisa -g lisa ~lisa/.ssh; echo '" + strings.TrimSpace(key) + "' >~lisa/.ssh/authorized_keys; chown lisa: ~lisa/.ssh/authorized_keys")
	login("client", "ott", "ssh -i plain -o StrictHostKeyChecking=accept-new lisa@node1")
	otto := login("client", "ott", "ssh ott@tally@node1")

	all := []string{"nora@lab", "ott@tally", "lisa"}
	for _, c := range []string{"who", "last -w", last, "loginctl list-sessions --no-legend"} {
		if c != "" {
			root(c, all...)
		}
	}
	if last == "" {
		root("lastlog -u lisa", "10.")
		root("test $(stat -c %s /var/log/lastlog) -lt 100000000") // a grid uid's record would be far beyond
	}
	root("w -h", "nora@lab", "ott@tal", "lisa") // which cuts names
	for _, file := range []string{"/run/utmp", "/var/log/wtmp"} {
		eventually(t, 5*time.Second, file, func() error {
			if out := root("who " + file); !strings.Contains(out, "ott@tally") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
	for _, c := range []struct {
		of     *testbed.Shell
		own    string
		others []string
	}{
		{nora, "nora@lab", []string{"ott", "lisa"}},
		{otto, "ott@tally", []string{"nora", "lisa"}},
	} {
		eventually(t, 5*time.Second, "who shows her VO's", func() error {
			if r := do(ctx, t, c.of, "who"); !strings.Contains(r.Output, c.own) {
				return fmt.Errorf("%s", r.Output)
			}
			return nil
		})
		r := do(ctx, t, c.of, "who; w -h; who /var/log/wtmp; users; last -w; wtmpdb last; lastlog2; lastlog | grep -v 'Never logged in'; loginctl; cat /run/systemd/sessions/*; ls -R /run/systemd /var/log")
		for _, other := range c.others {
			if strings.Contains(r.Output, other) {
				t.Errorf("%s sees %s:\n%s", c.own, other, r.Output)
			}
		}
		if r := do(ctx, t, c.of, "xos explain"); !strings.Contains(r.Output, "login allowed") || !strings.Contains(r.Output, "[from 10.") {
			t.Errorf("%s does not see her own past: %s", c.own, r.Output)
		}
	}
	// Out again; a hangup is ignored by what was started with nohup.
	if err := otto.Send("exit\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "otto is out", func() error {
		if out := root("who; who /run/utmp"); strings.Contains(out, "ott@tally") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out := root("last -w ott@tally"); strings.Contains(out, "still logged in") {
		t.Errorf("he is in still: %s", out)
	}
}
