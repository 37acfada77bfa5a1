package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
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
	if !s.terminal() {
		return s.line()
	}
	return s.askPerson(prompt)
}

func (s *secrets) line() (string, error) {
	line, err := s.lines.ReadString('\n')
	if err != nil && line == "" {
		return "", xos.Errorf(xos.Invalid, "no password on standard input")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// endedByInterrupt is the status of a process that ^C ended.
const endedByInterrupt = exitError(128 + int(syscall.SIGINT))

// askPerson stops the echo before it prompts, so that nothing of a fast answer is
// shown, and restores the terminal also when ^C or SIGTERM ends the wait.
func (s *secrets) askPerson(prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", err
	}
	defer func() {
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
		fmt.Fprintln(s.cmd.ErrOrStderr())
	}()
	fmt.Fprint(s.cmd.ErrOrStderr(), prompt)
	type answer struct {
		secret string
		err    error
	}
	answers := make(chan answer, 1)
	go func() { // still reads when the process ends by ^C
		secret, err := s.line()
		answers <- answer{secret, err}
	}()
	select {
	case a := <-answers:
		return a.secret, a.err
	case <-s.cmd.Context().Done():
		return "", endedByInterrupt
	}
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
