package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xtreemos/xos"
)

// secrets reads passwords: without echo from a terminal, else one line of
// standard input each.
type secrets struct {
	cmd   *cobra.Command
	lines *bufio.Reader
}

func newSecrets(cmd *cobra.Command) *secrets {
	return &secrets{cmd: cmd, lines: bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096))}
}

// terminal reports whether a person answers.
func (s *secrets) terminal() bool {
	return s.cmd.InOrStdin() == os.Stdin && term.IsTerminal(int(os.Stdin.Fd()))
}

// ask reads one secret.
func (s *secrets) ask(prompt string) (string, error) {
	if s.terminal() {
		fmt.Fprint(s.cmd.ErrOrStderr(), prompt)
		b, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(s.cmd.ErrOrStderr())
		return string(b), err
	}
	line, err := s.lines.ReadString('\n')
	if err != nil && line == "" {
		return "", xos.Errorf(xos.Invalid, "no password on standard input")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// choose lets a person choose a password, typed twice; in a script one line.
func (s *secrets) choose(prompt string) (string, error) {
	for {
		first, err := s.ask(prompt)
		if err != nil || !s.terminal() || first == "" {
			return first, err
		}
		second, err := s.ask("Once more: ")
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		fmt.Fprintln(s.cmd.ErrOrStderr(), "These differ.")
	}
}
