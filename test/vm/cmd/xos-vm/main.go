// Xos-vm boots and handles virtual machines by hand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/xtreemos/xos/test/vm"
	"github.com/xtreemos/xos/test/vm/wire"
)

const usage = `usage: xos-vm [-name NAME] COMMAND
  up [-kernel trixie|bookworm] [-counted] [DEB...]
                                          boot a machine that stays, with packages;
                                          counted: by its clock an instruction takes 1 ns
  down                                    end it
  run COMMAND...                          run a program in it as root
  push FILE TARGET                        copy a file into it
  shell [USER]                            open a login shell, on this terminal
  console                                 what it has printed
`

func main() {
	name := flag.String("name", "hand", "the machine's name")
	verbose := flag.Bool("v", false, "show apt's own output")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := vm.Config{Name: *name, Detached: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if *verbose {
		cfg.Progress = os.Stderr
	}
	code, err := command(ctx, cfg, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "xos-vm:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func command(ctx context.Context, cfg vm.Config, args []string) (int, error) {
	if len(args) == 0 {
		flag.Usage()
		return 2, nil
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "up":
		flags := flag.NewFlagSet("up", flag.ExitOnError)
		kernel := flags.String("kernel", string(vm.Debian13), "the release whose kernel it has")
		appended := flags.String("append", "", "added to the kernel's command line")
		flags.BoolVar(&cfg.Counted, "counted", false, "its clock goes by the instructions that it executes")
		_ = flags.Parse(args)
		cfg.Kernel, cfg.Append = vm.Kernel(*kernel), *appended
		for _, deb := range flags.Args() {
			path, err := filepath.Abs(deb)
			if err != nil {
				return 1, err
			}
			cfg.Debs = append(cfg.Debs, path)
		}
		_, err := vm.Start(ctx, cfg)
		return 0, err
	case verb == "down" && len(args) == 0:
		return 0, vm.Stop(cfg.Name)
	}
	m, err := vm.Attach(ctx, cfg.Name)
	if err != nil {
		return 1, err
	}
	switch {
	case verb == "run" && len(args) > 0:
		return do(ctx, m, wire.Spec{Argv: args})
	case verb == "push" && len(args) == 2:
		return 0, m.PushFile(ctx, args[0], args[1])
	case verb == "shell" && len(args) < 2:
		return shell(ctx, m, append([]string{"su", "-l"}, args...))
	case verb == "console" && len(args) == 0:
		fmt.Println(m.Console(1 << 20))
		return 0, nil
	}
	flag.Usage()
	return 2, nil
}

func do(ctx context.Context, m *vm.Machine, spec wire.Spec) (int, error) {
	var stdin io.Reader = os.Stdin
	if term.IsTerminal(0) && spec.Rows == 0 {
		stdin = nil
	}
	exit, err := m.Do(ctx, spec, vm.Streams{Stdin: stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if exit.Error != "" {
		err = errors.New(exit.Error)
	}
	return exit.Code, err
}

// shell joins this terminal with one in the machine.
func shell(ctx context.Context, m *vm.Machine, argv []string) (int, error) {
	columns, rows, err := term.GetSize(0)
	if err != nil {
		return 1, fmt.Errorf("%s: standard input is no terminal: %w", strings.Join(argv, " "), err)
	}
	before, err := term.MakeRaw(0)
	if err != nil {
		return 1, err
	}
	defer term.Restore(0, before)
	return do(ctx, m, wire.Spec{Argv: argv, Rows: uint16(rows), Columns: uint16(columns)})
}
