package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/xtreemos/xos/test/vm/wire"
)

// ExitError is how a command ended that did not end with status 0.
type ExitError struct {
	Machine string
	Argv    []string
	// Code is its exit status: 128 and the signal's number if one ended it, 127
	// if it did not start.
	Code   int
	Signal int
	// Said is what it wrote to standard error, or why it did not start.
	Said string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: exit status %d: %s", e.Machine, strings.Join(e.Argv, " "), e.Code, strings.TrimSpace(e.Said))
}

// Streams are a command's. nil is empty input, and output that is dropped.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Do runs a command as root to its end, and gives its exit status. err is set
// only if that is not known; when ctx ends, the command's process group is
// killed.
func (m *Machine) Do(ctx context.Context, spec wire.Spec, s Streams) (wire.Exit, error) {
	header, err := spec.Encode()
	if err != nil {
		return wire.Exit{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := s.Stdin
	if body == nil {
		body = http.NoBody
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://machine/", io.NopCloser(body))
	if err != nil {
		return wire.Exit{}, err
	}
	request.ContentLength = -1
	if s.Stdin == nil {
		request.Body, request.ContentLength = http.NoBody, 0
	}
	request.Header.Set(wire.Header, header)
	response, err := m.remote.transport().Do(request)
	if err != nil {
		return wire.Exit{}, fmt.Errorf("%s: %s: %w", m.Name, strings.Join(spec.Argv, " "), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		return wire.Exit{}, fmt.Errorf("%s: the agent refuses: %s", m.Name, text)
	}
	exit, err := wire.Copy(response.Body, s.Stdout, s.Stderr)
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", m.Name, strings.Join(spec.Argv, " "), errors.Join(err, context.Cause(ctx)))
	}
	return exit, err
}

// Run runs a command to its end. The error of one that failed is an *ExitError.
func (m *Machine) Run(ctx context.Context, argv ...string) error {
	_, err := m.Output(ctx, argv...)
	return err
}

// Output runs a command and returns its standard output, also when it failed.
func (m *Machine) Output(ctx context.Context, argv ...string) (string, error) {
	return m.Input(ctx, nil, argv...)
}

// Input is Output with something on the command's standard input.
func (m *Machine) Input(ctx context.Context, stdin io.Reader, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	exit, err := m.Do(ctx, wire.Spec{Argv: argv}, Streams{stdin, &stdout, &stderr})
	if err == nil && (exit.Code != 0 || exit.Error != "") {
		err = &ExitError{Machine: m.Name, Argv: argv, Code: exit.Code, Signal: exit.Signal, Said: exit.Error + stderr.String()}
	}
	return stdout.String(), err
}

// Shell runs a script of sh, which ends at its first error, and returns its
// standard output.
func (m *Machine) Shell(ctx context.Context, script string) (string, error) {
	return m.Output(ctx, "/bin/sh", "-ec", script)
}

// PushFile copies a file of the host into the machine, with its mode.
func (m *Machine) PushFile(ctx context.Context, source, target string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return m.Push(ctx, file, target, info.Mode().Perm())
}

// Push writes a file in the machine; its directory is made.
func (m *Machine) Push(ctx context.Context, from io.Reader, target string, mode os.FileMode) error {
	const script = `mkdir -p "$(dirname "$1")" && cat >"$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"`
	_, err := m.Input(ctx, from, "/bin/sh", "-c", script, "push", target, fmt.Sprintf("%o", mode))
	return err
}

// ReadFile gives a file of the machine.
func (m *Machine) ReadFile(ctx context.Context, path string) (string, error) {
	return m.Output(ctx, "cat", "--", path)
}
