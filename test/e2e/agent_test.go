package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/xtreemos/xos/test/testbed"
)

// TestRootLoginOnTerminal asks for the password at a terminal without showing
// it, and puts the credential into a real ssh-agent, from where alone ssh then
// has it; logging out takes it away.
func TestRootLoginOnTerminal(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "lotte", "lab")
	sh, err := g.Node("client").Shell(ctx, "su", "-l", "lotte")
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	do(ctx, t, sh, "xos logout; eval $(ssh-agent)")
	defer do(ctx, t, sh, "ssh-agent -k")
	do(ctx, t, sh, "stty echo") // as a person's terminal is
	r, err := answerPassword(ctx, t, sh, "long-\x03")
	if err != nil || r.Status != 130 || strings.Contains(r.Output, "long-") {
		t.Errorf("^C at the password: %v, status %d, %q", err, r.Status, r.Output)
	}
	if r := do(ctx, t, sh, "stty -a"); !regexp.MustCompile(`(?m) echo( |$)`).MatchString(r.Output) {
		t.Errorf("after ^C the terminal does not echo: %q", r.Output)
	}
	r, err = answerPassword(ctx, t, sh, "long-enough\n")
	if err != nil || r.Status != 0 || !strings.Contains(r.Output, "ssh-agent") || strings.Contains(r.Output, "long-enough") {
		t.Errorf("xos login: %v, status %d, %q", err, r.Status, r.Output)
	}
	do(ctx, t, sh, "stty -echo")
	if r := do(ctx, t, sh, "ssh-add -L"); !strings.Contains(r.Output, "cert-v01@openssh.com") {
		t.Errorf("ssh-agent has %q", r.Output)
	}
	if r := do(ctx, t, sh, "mv .xos away; ssh -o BatchMode=yes lotte@lab@node1 id -un; mv away .xos"); !strings.Contains(r.Output, "lotte@lab") {
		t.Errorf("ssh by the agent: %q", r.Output)
	}
	if r := do(ctx, t, sh, "xos logout && ssh-add -L"); r.Status == 0 || strings.Contains(r.Output, "cert-v01") {
		t.Errorf("after logging out the agent has %q", r.Output)
	}
}

// answerPassword types an answer as soon as the password is asked for.
func answerPassword(ctx context.Context, t *testing.T, sh *testbed.Shell, answer string) (testbed.Result, error) {
	t.Helper()
	if err := sh.Send("xos login lotte@lab\n"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sh.Expect(ctx, regexp.MustCompile("Password of lotte@lab: ")); err != nil {
		t.Fatal(err)
	}
	if err := sh.Send(answer); err != nil {
		t.Fatal(err)
	}
	return sh.Prompt(ctx)
}
