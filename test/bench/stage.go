package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

const (
	account = "alice@bench"
	home    = "/home/xos/bench/alice"
	// local is a user of node1 alone.
	local = "local-alice"
	// disk is a directory of the grid user's on node1's own disk.
	disk = "/var/tmp/bench"
	// ssh shares no connection with another ssh, for either user.
	ssh = "ssh -o BatchMode=yes -o ControlMaster=no -o ControlPath=none"
)

//go:embed testdata/create.c
var createSource string

// stage is the grid with its users, who are logged in all the time: a first
// login starts a user's service manager and mounts the home, the later ones
// that are measured do not.
type stage struct {
	*testbed.Grid
	held  []io.Closer
	peers bool // may be installed
}

// prepare adds the users and programs to a grid that has not got them yet, and
// logs in. What it began is to be closed, also if it failed.
func (s *stage) prepare(ctx context.Context, fresh bool) error {
	if fresh {
		fmt.Fprintln(os.Stderr, "adding a grid user and a local one")
		if err := s.enrol(ctx); err != nil {
			return err
		}
		if err := s.addLocal(ctx); err != nil {
			return err
		}
		if err := s.compile(ctx, "create", createSource); err != nil {
			return err
		}
	}
	if err := s.hold(ctx); err != nil {
		return err
	}
	if _, err := s.as(ctx, "node1", atHome+"mkdir -p "+disk); err != nil {
		return err
	}
	_, err := s.as(ctx, "node2", atHome)
	return err
}

// atHome fails where the home is not there: a login without it is no less a
// login, but not the one to be measured.
const atHome = `[ "$(pwd)" = ` + home + ` ] && [ "$(findmnt -no FSTYPE -T .)" = fuse.xosfs ] || { echo "the home is not mounted" >&2; exit 1; }
`

func (s *stage) enrol(ctx context.Context) error {
	teller := &story.Teller{Grid: s.Grid, Out: io.Discard}
	for _, step := range []story.Step{
		{Who: "root@core", Run: "xos vo create bench"},
		{Who: "root@core", Run: "xos user add alice", Want: `enrolment token.*: (\S+)`, Keep: "ALICE"},
		{Who: "root@core", Run: "xos vo member add bench alice"},
		{Who: "alice@client", Run: "printf '%s\\n' ${ALICE} wonderland-1865 | xos login " + account + " --token -"},
	} {
		if err := teller.Tell(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// addLocal makes the local user, with a plain key of the same kind as the grid
// user's.
func (s *stage) addLocal(ctx context.Context) error {
	hostKey, err := s.Node("node1").ReadFile(ctx, "/etc/ssh/ssh_host_ed25519_key.pub")
	if err != nil {
		return err
	}
	key, err := s.Node("client").Output(ctx, testbed.As("alice",
		"mkdir -p ~/.ssh; echo node1 "+strings.TrimSpace(hostKey)+" >> ~/.ssh/known_hosts; "+
			"ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cat ~/.ssh/id_ed25519.pub")...)
	if err != nil {
		return err
	}
	_, err = s.Node("node1").Input(ctx, strings.NewReader(key), "/bin/sh", "-ec",
		"useradd -m -s /bin/bash "+local+"; cd ~"+local+"; mkdir .ssh; cat > .ssh/authorized_keys; chown -R "+local+": .ssh")
	return err
}

// compile makes a program of node1 out of its C source.
func (s *stage) compile(ctx context.Context, name, source string) error {
	_, err := s.Node("node1").Input(ctx, strings.NewReader(source), "gcc", "-O2", "-Wall", "-Wextra", "-Werror",
		"-x", "c", "-o", path.Join("/usr/local/bin", "bench-"+name), "-")
	return err
}

// hold logs everybody in who is measured.
func (s *stage) hold(ctx context.Context) error {
	for _, login := range []string{account + "@node1", account + "@node2", local + "@node1"} {
		if err := s.stay(ctx, login); err != nil {
			return fmt.Errorf("holding a session of %s: %w", login, err)
		}
	}
	return nil
}

// stay logs in and stays until close, or this process's end.
func (s *stage) stay(ctx context.Context, login string) error {
	client := s.Node("client")
	cmd := client.Command(ctx, testbed.As("alice", ssh+" "+login+" 'echo held; exec cat'")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := client.Start(cmd); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "held\n" {
		in.Close()
		return errors.Join(err, cmd.Wait(), errors.New(strings.TrimSpace(complaint.String())))
	}
	s.held = append(s.held, closer(func() error { in.Close(); return cmd.Wait() }))
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }

func (s *stage) close() {
	for _, h := range s.held {
		_ = h.Close()
	}
	s.held = nil
}

// as runs a script as the grid user, in a login of her own on a node.
func (s *stage) as(ctx context.Context, node, script string) (string, error) {
	return s.Node("client").Input(ctx, strings.NewReader(script), testbed.As("alice",
		ssh+" "+account+"@"+node+" 'bash -eu'")...)
}

// clock begins a script that takes times: now is in microseconds.
const clock = "now() { now=${EPOCHREALTIME/[.,]/}; }\n"

// columns reads lines of numbers, all with as many as the first.
func columns(text string, n int) ([][]float64, error) {
	table := make([][]float64, n)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != n {
			return nil, fmt.Errorf("%q are not %d numbers", line, n)
		}
		for i, field := range fields {
			v, err := strconv.ParseFloat(field, 64)
			if err != nil || v <= 0 {
				return nil, fmt.Errorf("%q is no duration", field)
			}
			table[i] = append(table[i], v)
		}
	}
	if len(table[0]) == 0 {
		return nil, errors.New("no rounds")
	}
	return table, nil
}

// scaled multiplies all values.
func scaled(values []float64, by float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * by
	}
	return out
}

// rates gives amount/duration for each duration in microseconds, by the second.
func rates(durations []float64, amount float64) []float64 {
	out := make([]float64, len(durations))
	for i, d := range durations {
		out[i] = amount / d * 1e6
	}
	return out
}
