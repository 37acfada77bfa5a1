package testbed

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Shell is an interactive shell on a terminal in a node: what a person at a
// keyboard has, with job control. One goroutine uses it at a time.
type Shell struct {
	cmd    *exec.Cmd
	tty    *os.File
	cancel context.CancelFunc
	nonce  string
	prompt *regexp.Regexp

	mu      sync.Mutex
	pending []byte        // what was printed and not yet consumed
	ended   error         // set once nothing more will come
	grown   chan struct{} // closed and replaced when either changes
	done    chan struct{} // closed when the reader has ended
}

// Result is what one command at a shell did.
type Result struct {
	// Output is what the terminal showed between command and next prompt,
	// with plain line ends.
	Output string
	// Status is the shell's $?.
	Status int
}

// firstPrompt is how Debian's shells end their prompts.
var firstPrompt = regexp.MustCompile(`[$#] $`)

// Shell starts a program that is, or becomes, an interactive bash on a
// terminal of the node: "su -l alice", say. ctx bounds the start alone; the
// shell lives until Close, or the grid's end.
func (n *Node) Shell(ctx context.Context, argv ...string) (*Shell, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd, tty, err := n.StartTerminal(life, 50, 200, argv...)
	if err != nil {
		cancel()
		return nil, err
	}
	nonce := rand.Text()[:8]
	s := &Shell{cmd: cmd, tty: tty, cancel: cancel, nonce: nonce,
		prompt: regexp.MustCompile(`\[` + nonce + `:(\d+)\]`),
		grown:  make(chan struct{}), done: make(chan struct{})}
	go s.read()
	if _, err := s.adopt(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("starting %s on %s: %w", strings.Join(argv, " "), n.Name, err)
	}
	return s, nil
}

// adopt waits for a new shell's own prompt and replaces it with ours, which
// tells $?. It returns what was printed before.
func (s *Shell) adopt(ctx context.Context) (string, error) {
	either := regexp.MustCompile(s.prompt.String() + "|" + firstPrompt.String())
	before, match, err := s.Expect(ctx, either)
	if err != nil {
		return before, err
	}
	if match[1] != "" {
		return before, fmt.Errorf("no shell came, but status %s: %s", match[1], strings.TrimSpace(before))
	}
	// The quotes keep the echo of this line from looking like the prompt.
	setup := fmt.Sprintf("stty -echo; PROMPT_COMMAND= PS2= PS1='['%s':$?]'", s.nonce)
	if err := s.Send(setup + "\n"); err != nil {
		return before, err
	}
	_, _, err = s.Expect(ctx, s.prompt)
	return before, err
}

// Do types a command and waits for the next prompt. When ctx ends first, the
// error says what was printed so far, and the shell is best closed.
func (s *Shell) Do(ctx context.Context, command string) (Result, error) {
	if err := s.Send(command + "\n"); err != nil {
		return Result{}, err
	}
	return s.Prompt(ctx)
}

// Prompt waits for the next prompt, for example after Send("\x03").
func (s *Shell) Prompt(ctx context.Context) (Result, error) {
	out, match, err := s.Expect(ctx, s.prompt)
	if err != nil {
		return Result{Output: out}, err
	}
	status, err := strconv.Atoi(match[1])
	return Result{Output: out, Status: status}, err
}

// Enter types a command that opens another shell inside this one ("ssh host"),
// and returns what it greeted with. From then on Do speaks to the inner shell;
// its "exit" comes back to this one.
func (s *Shell) Enter(ctx context.Context, command string) (string, error) {
	if err := s.Send(command + "\n"); err != nil {
		return "", err
	}
	return s.adopt(ctx)
}

// Send types text as it is; "\x03" is Ctrl-C, "\x1a" Ctrl-Z.
func (s *Shell) Send(text string) error {
	_, err := io.WriteString(s.tty, text)
	return err
}

// Expect waits until what the terminal showed since the last call matches, and
// consumes it up to the match's end: the text before it, and the submatches.
func (s *Shell) Expect(ctx context.Context, pattern *regexp.Regexp) (before string, match []string, err error) {
	for {
		s.mu.Lock()
		at := pattern.FindSubmatchIndex(s.pending)
		if at != nil {
			before = plain(s.pending[:at[0]])
			for i := 0; i < len(at); i += 2 {
				text := ""
				if at[i] >= 0 {
					text = string(s.pending[at[i]:at[i+1]])
				}
				match = append(match, text)
			}
			s.pending = s.pending[at[1]:]
			s.mu.Unlock()
			return before, match, nil
		}
		shown, ended, grown := plain(s.pending), s.ended, s.grown
		s.mu.Unlock()
		if ended != nil {
			return shown, nil, fmt.Errorf("the shell has ended (%w) after printing %q", ended, shown)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return shown, nil, fmt.Errorf("waiting for %s: %w after printing %q", pattern, ctx.Err(), shown)
		}
	}
}

func plain(text []byte) string { return strings.ReplaceAll(string(text), "\r\n", "\n") }

func (s *Shell) read() {
	defer close(s.done)
	buffer := make([]byte, 4096)
	for {
		n, err := s.tty.Read(buffer)
		s.mu.Lock()
		s.pending = append(s.pending, buffer[:n]...)
		s.ended = err
		close(s.grown)
		s.grown = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close hangs up: processes of the terminal get SIGHUP, the shell is killed.
func (s *Shell) Close() {
	s.cancel()
	_ = s.cmd.Wait()
	s.tty.Close()
	<-s.done
}
