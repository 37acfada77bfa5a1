package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/xtreemos/xos/test/testbed"
)

// Step is one command that somebody gives, with what must come of it.
type Step struct {
	// Say tells what it shows; with it a new chapter begins.
	Say string
	// Who gives it where, "alice@client", and what: a shell command.
	Who, Run string
	// Shown is printed in place of Run where that has quoting nobody types.
	Shown string
	// Want and Not are regular expressions for the output, standard error
	// included; Status is what the command ends with.
	Want, Not string
	Status    int
	// Within repeats the command until it is as wanted, for what takes its
	// time by nature.
	Within time.Duration
	// Keep takes the first group of Want into a variable, used as ${NAME} in
	// later commands.
	Keep string
}

// Teller plays steps.
type Teller struct {
	Grid *testbed.Grid
	// Do takes the place of Grid: it gives a shell command as a user of a
	// machine, like Run.
	Do   func(ctx context.Context, machine, user, command string) (output string, status int, err error)
	Out  io.Writer
	kept map[string]string
}

func (t *Teller) run(ctx context.Context, machine, user, command string) (string, int, error) {
	if t.Do != nil {
		return t.Do(ctx, machine, user, command)
	}
	return Run(ctx, t.Grid.Node(machine), user, command)
}

// Tell plays a step and reports how it went wrong, if it did.
func (t *Teller) Tell(ctx context.Context, s Step) error {
	if s.Say != "" {
		fmt.Fprintf(t.Out, "\n── %s\n", s.Say)
	}
	user, node, _ := strings.Cut(s.Who, "@")
	command := t.expand(s.Run)
	s.Want, s.Not = t.expand(s.Want), t.expand(s.Not)
	shown := command
	if s.Shown != "" {
		shown = s.Shown
	}
	fmt.Fprintf(t.Out, "%s:%s$ %s\n", node, user, shown)
	start := time.Now()
	for {
		output, status, err := t.run(ctx, node, user, command)
		if err != nil {
			return err
		}
		problem := s.check(output, status)
		if problem == nil {
			fmt.Fprint(t.Out, output)
			t.keep(s, output)
			return nil
		}
		if time.Since(start) > s.Within || ctx.Err() != nil {
			return fmt.Errorf("%s:%s$ %s\n%s[status %d]\n%w", node, user, command, output, status, problem)
		}
		time.Sleep(50 * time.Millisecond) // between looks at a condition
	}
}

// variable is a kept value's place; what the shell expands looks otherwise.
var variable = regexp.MustCompile(`\$\{([A-Z]+)\}`)

func (t *Teller) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(ref string) string {
		if v, ok := t.kept[ref[2:len(ref)-1]]; ok {
			return v
		}
		return ref
	})
}

func (t *Teller) keep(s Step, output string) {
	if s.Keep == "" {
		return
	}
	if t.kept == nil {
		t.kept = map[string]string{}
	}
	if m := regexp.MustCompile(s.Want).FindStringSubmatch(output); len(m) > 1 {
		t.kept[s.Keep] = m[1]
	}
}

func (s Step) check(output string, status int) error {
	if status != s.Status {
		return fmt.Errorf("status %d, want %d", status, s.Status)
	}
	if s.Want != "" && !regexp.MustCompile(s.Want).MatchString(output) {
		return fmt.Errorf("the output lacks %q", s.Want)
	}
	if s.Not != "" && regexp.MustCompile(s.Not).MatchString(output) {
		return fmt.Errorf("the output has %q", s.Not)
	}
	return nil
}

// commandTime bounds one command.
const commandTime = 2 * time.Minute

// Machine is where commands are given: a node of the testbed, for one.
type Machine interface {
	// Command prepares a program to be run as root, Start starts it.
	Command(ctx context.Context, argv ...string) *exec.Cmd
	Start(cmd *exec.Cmd) error
}

// Run gives a shell command as a local user and returns all that it printed,
// and its exit status; -1 if it was ended for taking too long, which is what ctx
// says or else commandTime.
func Run(ctx context.Context, n Machine, user, command string) (string, int, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	cmd := n.Command(ctx, testbed.As(user, command)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Something that a command left in the background may hold its output.
	cmd.WaitDelay = time.Second
	if err := n.Start(cmd); err != nil {
		return "", 0, err
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return out.String(), 0, err
	}
	return out.String(), cmd.ProcessState.ExitCode(), nil
}
